"""The surroundings of the modules that run inside segments: on the way back they are as they were then."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from executor.replay import Replay, Surroundings
from executor.surroundings.buffers import Buffers
from executor.surroundings.modes import Modes
from executor.surroundings.seen import Seen
from executor.surroundings.streams import Stream
from executor.surroundings.watch import Watch


class Rewinding:
    """Follows a pass through segments, forward and back (statistics of BatchNorm, power iterations, random
    streams of Python, numpy and the modules themselves).

    Kept for each segment are copies of the buffers that the first one changed, and of the streams that it
    drew from; without such, nothing. torch's own random numbers are not its business: see `Recipe.replayed`.
    `given` are the tensors that the pass is given, whose changes autograd notices.
    """

    def __init__(self, modules: Sequence[nn.Module], given: Iterable[Any] = ()) -> None:
        seen = Seen.by(modules, modules) if modules else None
        everyone = seen.modules if seen else ()
        self._everything = Buffers(everyone)
        self._modes = Modes(everyone)
        self._watch = Watch(seen, given) if seen else None
        self._streams: list[Stream] = [*seen.generators, *seen.streams] if seen else []
        self._replay = self._replay_of(self._everything, self._streams)
        self._taken: list[Surroundings] = []

    def _replay_of(self, mutated: Buffers, moved: Sequence[Stream]) -> Replay:
        return Replay(
            generators=moved,
            idle=[stream for stream in self._streams if stream not in moved],
            mutated=mutated,
            everything=self._everything,
            modes=self._modes,
            watch=self._watch,
        )

    @contextmanager
    def advancing(self) -> Iterator[None]:
        """Around a segment on the way forward. When it fails, buffers are what they were before the first.

        Raises ReplayError when it changed a buffer that the first segment did not change, or drew from a
        stream that the first one did not draw from.
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
        moved = {
            index: state
            for index, state in enumerate(before.streams)
            if not torch.equal(state, self._streams[index].get_state())
        }
        streams = [self._streams[index] for index in moved]
        self._replay = self._replay_of(self._everything.subset(changed), streams)
        named = zip(self._everything.names, before.buffers, strict=True)
        return Surroundings(tuple(moved.values()), tuple(buffer for name, buffer in named if name in changed))

    def remember(self) -> None:
        """After the last segment of the way forward."""
        self._replay.remember()

    @contextmanager
    def recomputing(self) -> Iterator[None]:
        """Around the way back: what it does to buffers is forgotten, and `is_recomputing()` is true.

        Raises ModifiedBetweenPasses for a buffer that segments leave alone, or a number of torch's modules,
        that was changed since.
        """
        with self._replay.isolated():
            self._replay.require_unchanged()
            yield

    def rewind(self) -> None:
        """Before a segment on the way back, the last one first: surroundings as they were before it."""
        self._replay.rewind(self._taken.pop())
