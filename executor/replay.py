"""What must be put back so that running a step again changes nothing: random streams, buffers, autocast.

A step runs once for real, in the forward pass: it moves the random streams and updates buffers (the
statistics of BatchNorm, the power iteration of spectral norm) as it would without us. When it runs
again, the streams and buffers are first set to what they were before that step, on copies, and the
ambient ones are back afterwards.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from executor.errors import ModifiedBetweenPasses, ReplayError
from executor.surroundings.ambience import Ambience
from executor.surroundings.autocast import AutocastState
from executor.surroundings.buffers import Buffers, copied, untouched
from executor.surroundings.cached_weights import CachedWeights
from executor.surroundings.dispatch_modes import modes_now, under
from executor.surroundings.fingerprint import Fingerprint, is_copy
from executor.surroundings.modes import Modes
from executor.surroundings.put_back import put_back
from executor.surroundings.streams import Stream, set_streams
from executor.surroundings.watch import Watch
from executor.surroundings.written import Written
from executor.trees import version_of

_running = threading.local()


def is_recomputing() -> bool:
    """True inside a step that runs again: skip side effects (logging, counters, metrics) then."""
    return bool(getattr(_running, "recomputing", False))


def outputs_needed() -> bool:
    """False inside a step that runs again only for its state: it may return None as its output then.

    What is skipped must not draw random numbers.
    """
    return not getattr(_running, "state_only", False)


@contextmanager
def recomputing() -> Iterator[None]:
    """Within the context `is_recomputing()` is true."""
    before = is_recomputing()
    _running.recomputing = True
    try:
        yield
    finally:
        _running.recomputing = before


@contextmanager
def state_only(is_so: bool = True) -> Iterator[None]:
    """Within the context `outputs_needed()` is false; or true, of a loop inside a step that runs again."""
    before = not outputs_needed()
    _running.state_only = is_so
    try:
        yield
    finally:
        _running.state_only = before


class Surroundings(NamedTuple):
    """Random streams and buffers as they were before some step; kept with its input state."""

    streams: tuple[Tensor, ...]
    buffers: tuple[Tensor, ...]


NOTHING = Surroundings((), ())


class Replay:
    """Takes and restores `Surroundings`.

    `generators` are the random streams that the step draws from, `mutated` the buffers that it changes;
    both come from the probe. `idle` streams and `everything` serve to notice when the probe was wrong.
    """

    def __init__(
        self,
        *,
        generators: Sequence[Stream],
        idle: Sequence[Stream],
        mutated: Buffers,
        everything: Buffers,
        modes: Modes,
        watch: Watch | None = None,
        written: Written | None = None,
        differentiates_a_second_run: bool = False,
        advances_with_graphs: bool = False,
        makes_leaves: bool = False,
        leaves_cycles: bool = False,
        cached: CachedWeights | None = None,
    ) -> None:
        self._generators = generators
        self._idle = idle
        self._modes = modes
        self._watch = watch
        self._written = written
        self._cached = cached if cached is not None else CachedWeights()
        self._left: list[tuple[dict[str, Any], str, Tensor, int]] = []
        """Buffers that steps leave alone, with their versions, as the first pass left them."""
        self._mutated = mutated
        self._begun_with = mutated.current()
        self._everything = everything
        self._autocast = AutocastState.now()
        self.is_autocast = self._autocast.is_enabled
        self._ambience = Ambience.now()
        self._dispatch = modes_now()
        self.needs_one_leaf = self.is_autocast or differentiates_a_second_run
        """Whether all steps of a tape must see the same leaf of a parameter: autocast casts it once, and
        functions that differentiate a second run look for its gradient there."""
        self.advances_with_graphs = advances_with_graphs
        self.makes_leaves = makes_leaves
        self.leaves_cycles = leaves_cycles
        self.is_active = bool(generators) or bool(mutated.slots)

    def take(self) -> Surroundings:
        """The streams and buffers as they are now, copied."""
        if not self.is_active:
            return NOTHING
        return Surroundings(
            tuple(generator.get_state() for generator in self._generators),
            tuple(copied(self._mutated.current())),
        )

    def rewind(self, surroundings: Surroundings) -> None:
        """Set the streams and put copies of the buffers into the modules."""
        set_streams(self._generators, surroundings.streams)
        self._mutated.put(copied(surroundings.buffers))

    def restore(self, surroundings: Surroundings) -> None:
        """Undo a forward pass that failed: streams and values of the buffers as they were."""
        set_streams(self._generators, surroundings.streams)
        self._mutated.put(self._begun_with)  # a step may have put others in their place
        for buffer, value in zip(self._begun_with, surroundings.buffers, strict=True):
            buffer.copy_(value)

    @contextmanager
    def isolated(self) -> Iterator[None]:
        """Everything inside is recomputation: afterwards the ambient streams and buffers are back. Modules
        train or not as they did in the forward pass, on the buffers that they had.
        """
        with ExitStack() as stack:
            stack.enter_context(untouched(self._mutated, self._generators))
            stack.enter_context(recomputing())
            stack.enter_context(self._autocast.entered())
            stack.enter_context(self._cached.entered())
            stack.enter_context(self._ambience.entered())
            stack.enter_context(self._modes.restored())
            stack.enter_context(self._with_those_left())
            if self._watch is not None:
                stack.enter_context(self._watch.restored())
            yield

    def remember(self, *, runs_again: bool = True) -> None:
        """To be called at the end of every forward pass: what steps wrote; and, where any of them runs again,
        what they read.
        """
        if self._watch is not None and (runs_again or self._written is not None):
            seen = self._watch.look()
            if self._written is not None:
                self._written.remember(seen)
            if runs_again:
                self._watch.remember(seen)
        if runs_again:
            self._left = [
                (slots, name, tensor, version_of(tensor)) for slots, name, tensor in self._untouched()
            ]

    def cut_off(self, differentiable: Sequence[Tensor]) -> None:
        """What steps left behind is no way to the `differentiable` tensors (`Written.cut_off`)."""
        if self._written is not None:
            self._written.cut_off(differentiable)

    @contextmanager
    def running_again(self) -> Iterator[None]:
        """Within the context steps run again: what they leave in attributes is gone after it, and the modes
        that see every operation are those of the forward pass.
        """
        with (
            under(self._dispatch),
            self._written.put_back() if self._written is not None else nullcontext(),
        ):
            yield

    def require_unchanged(self) -> None:
        """Raise ModifiedBetweenPasses when a buffer, or what is watched, changed since `remember`."""
        if self._watch is not None:
            self._watch.require_unchanged()
        for _, name, tensor, version in self._left:
            if version_of(tensor) != version:
                raise ModifiedBetweenPasses(
                    f"buffer {name} was changed in place between forward and backward: recomputation would "
                    "read other values; change it after backward, pass it in the state, or, where the step "
                    "does not use it, name in module= only modules that it uses"
                )

    @contextmanager
    def _with_those_left(self) -> Iterator[None]:
        """Within the context modules hold the buffers that the forward pass left alone."""
        others = [each for each in self._left if not is_copy(each[0].get(each[1]), each[2])]
        with put_back((slots, name) for slots, name, _, _ in others):
            for slots, name, tensor, _ in others:
                slots[name] = tensor
            yield

    def left_alone(self) -> list[Tensor]:
        """Buffers that steps do not change."""
        return [tensor for _, _, tensor in self._untouched()]

    def _untouched(self) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
        """Buffers that steps leave alone, as they are in the modules now."""
        mutated = {(id(slots), name) for slots, name in self._mutated.slots}
        for slots, name in self._everything.slots:
            tensor = slots[name]
            if (id(slots), name) not in mutated and tensor is not None:
                yield slots, name, tensor

    def forget_cached(self) -> None:
        """Forget the weights that autocast made, or `parametrize.cached()` inside of steps: they belong to
        the tape or the advance that made them, and would otherwise be alive, and counted, until some later
        action replaces them; or be used by one that was to differentiate them.
        """
        if self.is_autocast:
            torch.clear_autocast_cache()
        self._cached.alone()

    def fingerprint(self) -> Fingerprint:
        """Of everything that a step should leave alone: streams that it does not draw from, buffers that it
        does not change.
        """
        return Fingerprint.of(self._idle, self.left_alone())

    def require_fingerprint(self, before: Fingerprint) -> None:
        """Raise ReplayError when something moved that did not move in the probe."""
        now = self.fingerprint()
        if now.streams != before.streams:
            raise ReplayError(
                "the step drew random numbers, which it did not do while it was probed: recomputation would "
                "draw others; let it draw in every step, or pass the numbers in as inputs (if another thread "
                "drew them, give that one a torch.Generator of its own)"
            )
        if not now.has_buffers_of(before):
            raise ReplayError(
                "the step changed a buffer that it did not change while it was probed: recomputation would "
                "see another value; change it in every step, or pass it in the state"
            )
