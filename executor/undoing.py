"""The engine for plans that undo stages: states that need not be stored are computed from the next ones.

An archived stretch keeps the bits that its stages lose, in archives that the reversible layer makes, and what
surrounds each stage (random streams, buffers) where a stage depends on it. Undoing a stage computes its tape
from the state after it; the tape is reversed at once. The state that comes out at the start of a stretch is
compared with the one that went in, bit for bit: a way back that computed other gates is noticed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from executor.engine import Run
from executor.errors import OTHER_GATES, PlanMismatch, ReversalMismatch
from executor.replay import NOTHING, Surroundings, state_only
from executor.reversal import Archiving, Undoing, note_archived, passing
from executor.stages.live_tape import LiveTape
from executor.stages.states import StoredState, owned
from executor.trees import Leaves, detached


@dataclass
class Stretch:
    """Stages first..last, archived one after the other and not undone yet."""

    first: int
    last: int
    archives: list[Any] = field(default_factory=list)
    """One per layer, made by the layers."""
    surroundings: list[Surroundings] = field(default_factory=list)
    """Before each stage; empty where nothing must be put back."""


class UndoingRun(Run):
    """A Run that can also archive and undo. The loop's whole state must be that of one reversible layer."""

    _stretches: list[Stretch]

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._stretches = []

    def release(self) -> None:
        """See Run."""
        super().release()
        self._stretches.clear()

    def _archive(self, first: int, last: int) -> None:
        leaves = self._enter(first, last)
        stretch = Stretch(first, last)
        self._stretches.append(stretch)
        how = Archiving(stretch.archives)
        for stage in range(first, last + 1):
            if self._replay.is_active:
                stretch.surroundings.append(self._replay.take())
            with passing(how):
                leaves = self._archive_stage(stage, leaves)
        self._require_reversible(stretch)
        note_archived(sum(archive.stored_bytes for each in self._stretches for archive in each.archives))
        if not self._recomputing:
            self._reached = last
        self._replay.forget_cached()
        self._checkpoints[last] = StoredState(owned(leaves), self._replay.take())

    def _require_reversible(self, stretch: Stretch) -> None:
        """The layers make an archive each; where there is none, nobody asked how the segment is run."""
        if not stretch.archives:
            raise PlanMismatch(
                f"stages {stretch.first}..{stretch.last} cannot be undone: the loop runs no segment of a "
                "reversible layer (executor.reversible)"
            )

    def _archive_stage(self, stage: int, leaves: Leaves) -> Leaves:
        if not self._recomputing:
            return self._advance_stage(stage, leaves)
        with state_only():
            return self._advance_stage(stage, leaves)

    def _undo(self, first: int, last: int) -> None:
        self.gradients.require_at(first)
        for stage in range(first, last - 1, -1):
            self._undo_stage(stage)

    def _undo_stage(self, stage: int) -> None:
        stretch = self._stretches[-1] if self._stretches else None
        if stretch is None or stretch.last != stage:
            raise PlanMismatch(f"stage {stage} is not archived")
        after = self._checkpoints.pop(stage, None)
        if after is None:
            raise PlanMismatch(f"x_{stage} is not a checkpoint, from which stage {stage} could be undone")
        self._before_running_again()
        surroundings = stretch.surroundings.pop() if stretch.surroundings else NOTHING
        if self._replay.is_active:
            self._replay.rewind(surroundings)
        self._tapes.append(self._undone(stage, after, stretch))
        before = StoredState(detached(self._tapes[-1].state_leaves), surroundings)
        self._backward(stage, stage)
        self._put(stage - 1, before, stretch)

    def _undone(self, stage: int, after: StoredState, stretch: Stretch) -> LiveTape:
        """The tape of `stage`, from the state after it."""
        slices = self._slices(stage, differentiated=True)
        blocks: list[Leaves] = []
        how = Undoing(stretch.archives)
        with self._replay.running_again(), torch.enable_grad(), passing(how):
            returned = self.program.run(
                stage, after.leaves, slices, lambda _first, _count, block: blocks.append(block)
            )
        self._replay.forget_cached()
        return LiveTape(stage, list(how.before), slices, returned, blocks, after)

    def _put(self, index: int, state: StoredState, stretch: Stretch) -> None:
        """Store x_index; where it began its stretch, require that it is the state that went in."""
        stretch.last = index
        known = self._checkpoints.get(index)
        if index < stretch.first:
            self._stretches.pop()
            if any(len(archive) for archive in stretch.archives):
                raise_not_back(index, "bits are left over")
        if known is None:
            self._checkpoints[index] = state
        elif not _equal(known.leaves, state.leaves):
            raise_not_back(index, "the state is another one")


def raise_not_back(index: int, what: str) -> None:
    """Refuse gradients of a way back that did not end where the way forward began."""
    raise ReversalMismatch(
        f"undoing did not come back to x_{index}: {what}; {OTHER_GATES}; no gradient is given"
    )


def _equal(left: Leaves, right: Leaves) -> bool:
    return all(
        torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(left, right, strict=True)
    )
