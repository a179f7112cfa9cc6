"""Buffers and modes of the modules that run inside segments: on the way back they are as they were then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from executor.replay import Buffers, Modes, Replay, Surroundings


class Rewinding:
    """Follows a pass through segments, forward and back (statistics of BatchNorm, power iterations).

    Kept for each segment are copies of the buffers that the first one changed; without such, nothing. Random
    numbers are not its business: see `Recipe.replayed`.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._everything = Buffers(modules)
        self._modes = Modes(modules)
        self._replay = self._replay_of(self._everything)
        self._taken: list[Surroundings] = []

    def _replay_of(self, mutated: Buffers) -> Replay:
        return Replay(generators=(), idle=(), mutated=mutated, everything=self._everything, modes=self._modes)

    @contextmanager
    def advancing(self) -> Iterator[None]:
        """Around a segment on the way forward. When it fails, buffers are what they were before the first.

        Raises ReplayError when it changed a buffer that the first segment did not change.
        """
        replay, before = self._replay, self._replay.take()
        fingerprint = replay.fingerprint()
        try:
            yield
            replay.require_fingerprint(fingerprint)
        except BaseException:
            replay.restore(self._taken[0] if self._taken else before)
            raise
        self._taken.append(before if self._taken else self._narrowed(before))

    def _narrowed(self, before: Surroundings) -> Surroundings:
        """From now on only what has changed since `before` is kept; that part of it."""
        changed = self._everything.changed_since(before.buffers)
        self._replay = self._replay_of(self._everything.subset(changed))
        named = zip(self._everything.names, before.buffers, strict=True)
        return Surroundings((), tuple(buffer for name, buffer in named if name in changed))

    def remember(self) -> None:
        """After the last segment of the way forward."""
        self._replay.remember()

    @contextmanager
    def recomputing(self) -> Iterator[None]:
        """Around the way back: what it does to buffers is forgotten, and `is_recomputing()` is true.

        Raises ModifiedBetweenPasses for a buffer that segments leave alone and that was changed since.
        """
        self._replay.require_unchanged()
        with self._replay.isolated():
            yield

    def rewind(self) -> None:
        """Before a segment on the way back, the last one first: buffers as they were before that segment."""
        self._replay.rewind(self._taken.pop())
