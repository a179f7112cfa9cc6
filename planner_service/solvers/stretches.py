"""Tables for chains whose stages can be undone: stretches between checkpoints, archived or taped.

Every stage counts as large as the largest of its chain and costs what the most frequent one costs, so that
a stretch is its length alone. Notation, beside that of DESIGN.md, section 3:

    r, v, u   archive bytes of a stage; cost of undoing and reversing it; workspace of that
    M         bytes free beside static and input
    c         checkpoints held
    n         stretches, in units of `unit` stages
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner_service.chain import Chain, Reversal
from planner_service.solvers.solution import Cancellation

Costs = NDArray[np.float64]
Splits = NDArray[np.int64]

LEAF = 0
"""Split of a stretch that is run without a checkpoint inside."""


@dataclass(frozen=True)
class Sizes:
    """What the stages of a chain take at most, in bytes; costs of the most frequent one."""

    state: int
    gradient: int
    tape: int
    archive: int
    forward_workspace: int
    archive_workspace: int
    taped_workspace: int
    backward_workspace: int
    undo_workspace: int
    forward_cost: float
    taping_cost: float
    """Taping and reversing."""
    undoing_cost: float
    """Archiving, undoing and reversing."""
    most_archived: int
    """How many stages may be archived at once."""

    @classmethod
    def of(cls, chain: Chain, most_archived: int | None = None) -> Sizes:
        """The sizes of a chain all of whose stages can be undone, any number or `most_archived` at once."""
        stages = [run.stage for run in chain.runs]
        reversals = [stage.reversal or Reversal(archive_bytes=0, undo_cost=0) for stage in stages]
        ends = [chain.gradient_bytes(0), chain.gradient_bytes(chain.length)]
        usual = max(chain.runs, key=lambda run: run.count).stage
        undo_cost = usual.reversal.undo_cost if usual.reversal else 0.0
        return cls(
            state=max(chain.input_bytes, *(stage.state_bytes for stage in stages)),
            gradient=max(*ends, *(stage.live_gradient_bytes for stage in stages)),
            tape=max(stage.tape_bytes for stage in stages),
            archive=max(reversal.archive_bytes for reversal in reversals),
            forward_workspace=max(stage.forward_workspace_bytes for stage in stages),
            archive_workspace=max(stage.archiving_workspace_bytes for stage in stages),
            taped_workspace=max(stage.taped_forward_workspace_bytes for stage in stages),
            backward_workspace=max(stage.backward_workspace_bytes for stage in stages),
            undo_workspace=max(reversal.undo_workspace_bytes for reversal in reversals),
            forward_cost=usual.forward_cost,
            taping_cost=usual.taped_forward_cost + usual.backward_cost,
            undoing_cost=usual.archiving_cost + undo_cost,
            most_archived=chain.length if most_archived is None else most_archived,
        )

    @property
    def undoing_bytes(self) -> int:
        """What archiving and undoing take at most, besides the archive itself."""
        archiving = self.gradient + 2 * self.state + self.archive_workspace
        return max(archiving, 2 * self.state + 2 * self.gradient + self.undo_workspace)

    @property
    def taping_bytes(self) -> int:
        """What taping and reversing take at most, besides the tapes themselves."""
        return self.gradient + max(self.taped_workspace, self.gradient + self.backward_workspace)

    @property
    def advance_bytes(self) -> int:
        """What it takes to advance any number of stages to a new checkpoint, that one included."""
        return self.gradient + 2 * self.state + self.forward_workspace

    def leaf_bytes(self, archived: int, taped: int) -> int:
        """What it takes to archive `archived` stages, tape the `taped` after them, and go back."""
        held = archived * self.archive
        undoing = held + self.undoing_bytes if archived else 0
        taping = held + self.state * (archived > 0) + taped * self.tape + self.taping_bytes if taped else 0
        return max(undoing, taping)

    def least_leaf_bytes(self, length: int) -> int:
        """The least that `leaf_bytes` of `length` stages can be."""
        spare = self.undoing_bytes - self.state - self.taping_bytes
        turn = length - max(0, spare) // self.tape if self.tape else 1
        most = min(length, self.most_archived)
        archived = {0, most, *(min(max(y, 1), most) for y in (turn, turn + 1))}
        return min(self.leaf_bytes(y, length - y) for y in archived)

    def leaf(self, length: int, room_bytes: int) -> int | None:
        """How many of `length` stages to archive, the others taped, at the least cost within the room.

        None where no number fits.
        """
        tried = (0, *self._mixed(length, room_bytes), min(length, self.most_archived))
        fitting = [y for y in tried if self._fits(y, length, room_bytes)]
        if not fitting:
            return None
        return min(fitting) if self.taping_cost <= self.undoing_cost else max(fitting)

    def _fits(self, archived: int, length: int, room_bytes: int) -> bool:
        return self.leaf_bytes(archived, length - archived) <= room_bytes

    def _mixed(self, length: int, room_bytes: int) -> tuple[int, ...]:
        """The least and the greatest number below `length` that fits: both needs are linear in it."""
        low, high = 1, min(length - 1, self.most_archived)
        if self.archive:
            high = min(high, (room_bytes - self.undoing_bytes) // self.archive)
        over = self.state + length * self.tape + self.taping_bytes - room_bytes
        saved = self.tape - self.archive
        if saved > 0:
            low = max(low, -(-over // saved))
        elif saved < 0:
            high = min(high, -over // -saved)
        return (low, high) if low <= high else ()

    def leaf_cost(self, archived: int, taped: int) -> float:
        """Makespan of such a stretch."""
        return archived * self.undoing_cost + taped * self.taping_cost


@dataclass(frozen=True)
class Tables:
    """cost[n, c] of n units with c checkpoints held, and split[n, c]: units to advance first, or LEAF."""

    cost: Costs
    split: Splits


def fill(
    sizes: Sizes, *, units: int, unit: int, free_bytes: int, most_held: int, cancellation: Cancellation
) -> Tables:
    """The tables for 0..units and 0..most_held; cost is inf where nothing fits. O(units^2 * most_held)."""
    cost = np.full((units + 1, most_held + 2), np.inf)
    split = np.full((units + 1, most_held + 2), LEAF, dtype=np.int64)
    rooms = [free_bytes - held * sizes.state for held in range(most_held + 1)]
    advancing = np.array([room >= sizes.advance_bytes for room in rooms])
    for n in range(1, units + 1):
        cancellation.check()
        for held, room in enumerate(rooms):
            archived = sizes.leaf(n * unit, room)
            if archived is not None:
                cost[n, held] = sizes.leaf_cost(archived, n * unit - archived)
        if n > 1:
            advanced = np.arange(1, n, dtype=np.float64) * (unit * sizes.forward_cost)
            _split(cost, split, n, advanced, advancing)
    return Tables(cost, split)


def _split(cost: Costs, split: Splits, n: int, advanced: Costs, advancing: NDArray[np.bool_]) -> None:
    """Improve row n by the best place for a first checkpoint: the right part holds one more."""
    tried = advanced[:, None] + cost[n - 1 : 0 : -1, 1:] + cost[1:n, :-1]
    best = tried.argmin(axis=0)
    least = tried[best, np.arange(tried.shape[1])]
    better = advancing & (least < cost[n, :-1])
    cost[n, :-1][better] = least[better]
    split[n, :-1][better] = best[better] + 1
