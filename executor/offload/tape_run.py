"""A run whose tapes move to host memory and come back: every step is run once.

To the planner a tape in host memory is what the lost bits of a reversible layer are: something that is kept
of a stage, of which little or nothing stays on the device, and from which the stage is reversed. So the
actions are those of `executor.undoing`: `archive` tapes its stages one after the other, the tape of one going
while that of the next is made; `undo` reverses them, the tape of one coming while the one after it is
reversed. No more than two tapes are on the device at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import GradientEdge, get_gradient_edge

from executor.engine import Run
from executor.errors import PlanMismatch
from executor.offload import transfers
from executor.offload.entered import entered
from executor.offload.host_tapes import HostTapes
from executor.offload.layout import storages_of
from executor.offload.slots import HOST, Slots
from executor.offload.tape_storages import Storage, TapeStorages
from executor.offload.transfers import Transfer
from executor.stages.live_tape import LiveTape
from executor.stages.states import StoredState, owned
from executor.trees import Leaves
from planner_service.chain import Archive, TieredAction, Undo

_PythonNode: type = BackwardCFunction  # its stub is no node to the type checker


@dataclass
class _Lowered:
    """A tape that has left the device, or is leaving it."""

    tape: LiveTape
    """Its roots are places in the graph, and its state stands for itself: neither holds memory."""
    storages: list[Storage]
    slot: Any
    written: Transfer
    arriving: Transfer | None = None


@dataclass
class _Stretch:
    """Stages first..last with tapes in host memory, none of them reversed yet."""

    first: int
    last: int
    tapes: list[_Lowered] = field(default_factory=list)


class HostTapesRun(Run):
    """A Run that can also archive stages and undo them, by their tapes; arguments as there.

    `by_stage` calls the observer for every stage of such an action too; with `settled` each tape has gone
    before the next one is made.
    """

    def __init__(
        self,
        *arguments: Any,
        host_tapes: HostTapes,
        device: torch.device,
        by_stage: bool = False,
        settled: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._device = device
        self._by_stage, self._settled = by_stage, settled
        self._most_bytes = host_tapes.budget_bytes
        self._slots = Slots(HOST, count=host_tapes.most, slot_bytes=host_tapes.slot_bytes, device=device)
        self._writes, self._reads = transfers.copy_stream(device), transfers.copy_stream(device)
        self._kept = storages_of(self.held_throughout())
        self._stretches: list[_Stretch] = []
        self._entered: list[Any] | None = None
        """What stands for the state that entered the tape that is made; None for a tape that stays."""

    def release(self) -> None:
        """Drop what is held on the device and in host memory, once no transfer touches it."""
        self._settle()
        super().release()
        self._stretches.clear()

    def __del__(self) -> None:
        # A result that is dropped without a backward pass: a read may still be writing device memory.
        self._settle()

    def _settle(self) -> None:
        for stretch in getattr(self, "_stretches", ()):
            for lowered in stretch.tapes:
                lowered.written.wait()
                if lowered.arriving is not None:
                    lowered.arriving.wait()

    # Away

    def _archive(self, first: int, last: int) -> None:
        leaves = self._enter(first, last)
        stretch = _Stretch(first, last)
        self._stretches.append(stretch)
        storages = TapeStorages(self._kept | storages_of(leaves), self._device)
        state = StoredState(leaves)
        for stage in range(first, last + 1):
            self._observe_stage(Archive(stage, stage))
            state = self._archive_stage(stage, state.leaves, stretch, storages)
        _leave(stretch.tapes[-1])
        if not self._recomputing:
            self._reached = last
        self._checkpoints[last] = state

    def _archive_stage(
        self, stage: int, leaves: Leaves, stretch: _Stretch, storages: TapeStorages
    ) -> StoredState:
        """Tape the stage, let the tape before it be gone, and start writing this one; the state after it."""
        self._entered = []
        try:
            with storages.collected():
                tape = self._tape_stage(stage, leaves)
            stands = self._entered
        finally:
            self._entered = None
        if stretch.tapes:
            _leave(stretch.tapes[-1])
        state = tape.state
        if stage == stretch.last:
            state = StoredState(owned(state.leaves), state.surroundings)
        leaving = storages.leaving(besides=storages_of(state.leaves))
        stretch.tapes.append(self._lowered(tape, stands, leaving))
        if self._settled:
            _leave(stretch.tapes[-1])
        return state

    def _is_first_tape(self) -> bool:
        return super()._is_first_tape() and not any(stretch.tapes for stretch in self._stretches)

    def _entering(self, stage: int, leaves: Leaves) -> list[Any]:
        if self._entered is None:
            return super()._entering(stage, leaves)
        taken, self._entered = entered(leaves, inside=stage > 1)
        return taken

    def _lowered(self, tape: LiveTape, stands: list[Any], leaving: list[Storage]) -> _Lowered:
        """The tape without what holds memory on the device, and its storages, which are being written."""
        size_bytes = sum(storage.size_bytes for storage in leaving)
        slot = self._slots.take_any(size_bytes, self._most_bytes)
        written = self._writes.copy([(part, each.flat) for part, each in _places(slot[1], leaving)])
        differentiable = self.program.inputs.differentiable
        slices = [each if index in differentiable else None for index, each in enumerate(tape.slices)]
        bare = LiveTape(
            tape.stage,
            stands,
            slices,
            _edges(tape.after),
            [_edges(block) for block in tape.blocks],
            StoredState(()),
            tape.parameters,
        )
        return _Lowered(bare, leaving, slot, written)

    # Back

    def _undo(self, first: int, last: int) -> None:
        self.gradients.require_at(first)
        stretch = self._stretches[-1] if self._stretches else None
        if stretch is None or (stretch.last, stretch.first) != (first, last):
            raise PlanMismatch(f"stages {first}..{last} are not those whose tapes went to host memory last")
        if self._checkpoints.pop(first, None) is None:
            raise PlanMismatch(f"x_{first} is not a checkpoint, from which stage {first} could be undone")
        self._recall(stretch.tapes[-1])
        for stage in range(first, last - 1, -1):
            self._observe_stage(Undo(stage, stage))
            if stage > last:
                self._recall(stretch.tapes[-2])
            self._arrived(stretch.tapes[-1])
            self._backward_stage(stretch.tapes.pop().tape)  # which nothing else may hold
        self._stretches.pop()

    def _recall(self, lowered: _Lowered) -> None:
        pairs = [(storage.make_room(), part) for part, storage in _places(lowered.slot[1], lowered.storages)]
        lowered.arriving = self._reads.copy(pairs, after=lowered.written)

    def _arrived(self, lowered: _Lowered) -> None:
        """The tape is on the device again, and its slot is free."""
        assert lowered.arriving is not None  # noqa: S101 - it was recalled
        lowered.arriving.wait()
        self._slots.put(lowered.slot)
        lowered.storages.clear()

    def _observe_stage(self, action: TieredAction) -> None:
        if self._by_stage:
            self._observe(action)


def _leave(lowered: _Lowered) -> None:
    """The tape's memory on the device goes, once it is written."""
    lowered.written.wait()
    for storage in lowered.storages:
        storage.leave()
        storage.memory = None


def _places(slot: Tensor, storages: list[Storage]) -> list[tuple[Tensor, Storage]]:
    """(part of the slot, storage), one after the other."""
    places, first = [], 0
    for storage in storages:
        places.append((slot.narrow(0, first, storage.size_bytes), storage))
        first += storage.size_bytes
    return places


def _edges(leaves: Leaves) -> Leaves:
    """Where the gradients of these tensors enter the graph; None for those that get none."""
    with torch.enable_grad():
        return tuple(
            _edge(leaf) if isinstance(leaf, Tensor) and leaf.requires_grad else None for leaf in leaves
        )


def _edge(root: Tensor) -> GradientEdge:
    """The node of a function written in Python does not keep its graph alive; that of a view of it does."""
    return get_gradient_edge(root.view_as(root) if isinstance(root.grad_fn, _PythonNode) else root)
