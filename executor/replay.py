"""What must be put back so that running a step again changes nothing: random streams, buffers, autocast.

A step runs once for real, in the forward pass: it moves the random streams and updates buffers (the
statistics of BatchNorm, the power iteration of spectral norm) as it would without us. When it runs
again, the streams and buffers are first set to what they were before that step, on copies, and the
ambient ones are back afterwards.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from executor.errors import ModifiedBetweenPasses, ReplayError, StateMutated
from executor.surroundings.ambience import Ambience
from executor.surroundings.put_back import put_back
from executor.surroundings.streams import Stream
from executor.surroundings.watch import Watch
from executor.surroundings.wiring import Wiring
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


def copied(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Copies without graphs; what stands there twice has one copy: tied buffers stay tied."""
    copies: dict[int, Tensor] = {}
    return [
        copies[id(each)] if id(each) in copies else copies.setdefault(id(each), each.detach().clone())
        for each in tensors
    ]


class Buffers:
    """All buffers of some modules, by the dictionaries that own them."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.slots: list[tuple[dict[str, Any], str]] = []
        self.names: list[str] = []
        taken: set[nn.Module] = set()
        for module in modules:
            for prefix, owner in module.named_modules(taken):
                for name, buffer in owner._buffers.items():
                    if buffer is not None:
                        self.slots.append((owner._buffers, name))
                        self.names.append(f"{prefix}.{name}" if prefix else name)

    def current(self) -> list[Tensor]:
        """The tensors that are in the modules now."""
        return [tensor for slots, name in self.slots if (tensor := slots[name]) is not None]

    def put(self, tensors: Iterable[Tensor]) -> None:
        """Put other tensors into the modules."""
        for (slots, name), tensor in zip(self.slots, tensors, strict=True):
            slots[name] = tensor

    def changed_since(self, copies: Iterable[Tensor]) -> frozenset[str]:
        """Names of those that differ from `copies`, which are in the order of `current`."""
        return frozenset(
            name
            for name, before, after in zip(self.names, copies, self.current(), strict=True)
            if before.shape != after.shape or not torch.equal(before, after)
        )

    def require_apart(self, changed: frozenset[str]) -> None:
        """Raise StateMutated where one of those that steps change is a view of another buffer."""
        storages: dict[int, tuple[str, Tensor]] = {}
        for name, tensor in zip(self.names, self.current(), strict=True):
            other, found = storages.setdefault(tensor.untyped_storage().data_ptr(), (name, tensor))
            if found is not tensor and tensor.numel() and not changed.isdisjoint((name, other)):
                raise StateMutated(
                    f"the step changes buffers {other} and {name}, of which one is a view of the other: put "
                    "back as copies they would be two; register one of them, and make the other from it"
                )

    def subset(self, names: frozenset[str]) -> Buffers:
        """Only the buffers of these names."""
        chosen = Buffers(())
        for slot, name in zip(self.slots, self.names, strict=True):
            if name in names:
                chosen.slots.append(slot)
                chosen.names.append(name)
        return chosen


def set_streams(generators: Iterable[Stream], states: Iterable[Tensor]) -> None:
    """Set random streams to what `get_state` said of them."""
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)


@contextmanager
def untouched(buffers: Buffers, generators: Sequence[Stream]) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Within the context modules hold copies of their buffers; afterwards the buffers themselves, and the
    random streams are where they were. Gives both as they were.
    """
    originals = buffers.current()
    streams = [generator.get_state() for generator in generators]
    buffers.put(copied(originals))
    try:
        yield originals, streams
    finally:
        buffers.put(originals)
        set_streams(generators, streams)


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
        differentiates_a_second_run: bool = False,
        advances_with_graphs: bool = False,
        makes_leaves: bool = False,
    ) -> None:
        self._generators = generators
        self._idle = idle
        self._modes = modes
        self._watch = watch
        self._left: list[tuple[dict[str, Any], str, Tensor, int]] = []
        """Buffers that steps leave alone, with their versions, as the first pass left them."""
        self._mutated = mutated
        self._begun_with = mutated.current()
        self._everything = everything
        self._autocast = AutocastState.now()
        self.is_autocast = self._autocast.is_enabled
        self._ambience = Ambience.now()
        self.needs_one_leaf = self.is_autocast or differentiates_a_second_run
        """Whether all steps of a tape must see the same leaf of a parameter: autocast casts it once, and
        functions that differentiate a second run look for its gradient there."""
        self.advances_with_graphs = advances_with_graphs
        self.makes_leaves = makes_leaves
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
            stack.enter_context(self._ambience.entered())
            stack.enter_context(self._modes.restored())
            stack.enter_context(self._with_those_left())
            if self._watch is not None:
                stack.enter_context(self._watch.restored())
            yield

    def remember(self) -> None:
        """To be called at the end of a forward pass whose steps run again."""
        if self._watch is not None:
            self._watch.remember()
        self._left = [(slots, name, tensor, version_of(tensor)) for slots, name, tensor in self._untouched()]

    def require_unchanged(self) -> None:
        """Raise ModifiedBetweenPasses when a buffer, or what is watched, changed since `remember`."""
        if self._watch is not None:
            self._watch.require_unchanged()
        for _, name, tensor, version in self._left:
            if version_of(tensor) != version:
                raise ModifiedBetweenPasses(
                    f"buffer {name} was changed in place between forward and backward: recomputation would "
                    "read other values; change it after backward, or pass it in the state"
                )

    @contextmanager
    def _with_those_left(self) -> Iterator[None]:
        """Within the context modules hold the buffers that the forward pass left alone."""
        others = [each for each in self._left if each[0].get(each[1]) is not each[2]]
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
        """Forget the weights that autocast or `parametrize.cached()` made: they belong to the tape or the
        advance that made them, and would otherwise be alive, and counted, until some later action replaces
        them; or be used by one that was to differentiate them.
        """
        if self.is_autocast:
            torch.clear_autocast_cache()
        if parametrize._cache_enabled:  # noqa: SLF001 - there is no other way in
            parametrize._cache.clear()  # noqa: SLF001

    def fingerprint(self) -> tuple[list[int], list[tuple[int, int]]]:
        """Of everything that a step should leave alone: streams that it does not draw from, identity and
        version of buffers that it does not change.
        """
        streams = [hash(generator.get_state().numpy().tobytes()) for generator in self._idle]
        buffers = [(id(tensor), version_of(tensor)) for _, _, tensor in self._untouched()]
        return streams, buffers

    def require_fingerprint(self, before: tuple[list[int], list[tuple[int, int]]]) -> None:
        """Raise ReplayError when something moved that did not move in the probe."""
        streams, buffers = self.fingerprint()
        if streams != before[0]:
            raise ReplayError(
                "the step drew random numbers, which it did not do while it was probed: recomputation would "
                "draw others; let it draw in every step, or pass the numbers in as inputs (if another thread "
                "drew them, give that one a torch.Generator of its own)"
            )
        if buffers != before[1]:
            raise ReplayError(
                "the step changed a buffer that it did not change while it was probed: recomputation would "
                "see another value; change it in every step, or pass it in the state"
            )


class Modes:
    """Which parts of some modules train, and how these are put together."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        modules = tuple(modules)
        self._wiring = Wiring(modules)
        taken: set[nn.Module] = set()
        parts = (part for module in modules for _, part in module.named_modules(taken))
        self._flags = [(part, part.training) for part in parts]

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Within the context they train, or not, and have the parts and hooks that they had when this was
        made.
        """
        changed = [(part, then) for part, then in self._flags if part.training != then]
        for part, then in changed:
            part.training = then
        try:
            with self._wiring.restored():
                yield
        finally:
            for part, then in changed:
                part.training = not then


@dataclass(frozen=True)
class AutocastState:
    """Autocast as it is for one device type and the CPU."""

    devices: tuple[tuple[str, bool, torch.dtype], ...]
    cache: bool

    @classmethod
    def now(cls) -> AutocastState:
        """The state of this thread."""
        types = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
        return cls(
            tuple((kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in types),
            torch.is_autocast_cache_enabled(),
        )

    @property
    def is_enabled(self) -> bool:
        """True when any device autocasts."""
        return any(enabled for _, enabled, _ in self.devices)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Within the context autocast is as it was then, whatever it is in this thread."""
        with ExitStack() as stack:
            for kind, enabled, dtype in self.devices:
                if enabled or torch.is_autocast_enabled(kind):
                    context: Any = torch.autocast(
                        kind, dtype=dtype, enabled=enabled, cache_enabled=self.cache
                    )
                    stack.enter_context(context)
            yield
