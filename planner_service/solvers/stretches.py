"""A stretch between two checkpoints: its first stages archived and undone, the others taped.

Its stages count as large as the largest of them, and cost what they cost; the states and gradients at its
ends count as they are. On equal stages that is the truth, to the byte. Notation, beside that of
docs/memory_model.md:

    r, v, u   archive bytes of a stage; cost of undoing and reversing it; workspace of that
    n, y      stages of the stretch; those of them that are archived, the first ones
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner_service.chain import Chain, Stage

Bytes = NDArray[Any]
"""Whole numbers: of 64 bits where sums stay inside, Python's where they may not."""
Costs = NDArray[np.float64]
Counts = NDArray[np.int64]

MOST_TRIED = 500
"""Up to so many stages every number of archived ones is tried."""
MOST_TURNS = 100
"""Changes of stage at which archiving may give way to taping in longer stretches, evenly picked."""


class Largest(NamedTuple):
    """What the stages of a stretch take at most, in bytes."""

    state: int
    gradient: int
    tape: int
    archive: int
    archive_workspace: int
    taped_workspace: int
    backward_workspace: int
    undo_workspace: int

    @classmethod
    def of(cls, stages: Iterable[Stage]) -> Largest:
        """The maxima over `stages`, all of which can be undone."""
        return cls(*map(max, zip(*map(_sizes, stages), strict=True)))

    def joined(self, other: Largest) -> Largest:
        """The maxima over the stages of both."""
        return Largest(*map(max, self, other))


def _sizes(stage: Stage) -> Largest:
    reversal = stage.reversal
    return Largest(
        state=stage.state_bytes,
        gradient=stage.live_gradient_bytes,
        tape=stage.tape_bytes,
        archive=reversal.archive_bytes if reversal else 0,
        archive_workspace=stage.archiving_workspace_bytes,
        taped_workspace=stage.taped_forward_workspace_bytes,
        backward_workspace=stage.backward_workspace_bytes,
        undo_workspace=reversal.undo_workspace_bytes if reversal else 0,
    )


class StageSums:
    """Sums of a cost over the stages 1..i of a chain, for any i: linear within a run."""

    def __init__(self, counts: Counts, costs: Costs) -> None:
        self._ends = np.cumsum(counts)
        self._starts = self._ends - counts
        self._costs = costs
        self._before = np.concatenate([[0.0], np.cumsum(counts * costs)[:-1]])

    def at(self, stages: Counts | int) -> Costs:
        """The sums up to `stages`, each 0..L."""
        run = np.minimum(np.searchsorted(self._ends, stages), len(self._ends) - 1)
        total: Costs = self._before[run] + (stages - self._starts[run]) * self._costs[run]
        return total

    def between(self, first: int, last: int) -> float:
        """The sum over the stages first..last."""
        return float(self.at(last) - self.at(first - 1))


@dataclass(frozen=True)
class ChainCosts:
    """What advancing, taping and undoing cost, as sums over stages."""

    advancing: StageSums
    taping: StageSums
    """Taping and reversing."""
    excess: StageSums
    """What archiving, undoing and reversing cost more than that."""
    turns: Counts
    """Last stages of the runs."""

    @classmethod
    def of(cls, chain: Chain) -> ChainCosts:
        """Those of `chain`, all of whose stages can be undone."""
        stages = [run.stage for run in chain.runs]
        counts = np.array([run.count for run in chain.runs], dtype=np.int64)
        taping = np.array([stage.taped_forward_cost + stage.backward_cost for stage in stages], dtype=float)
        undoing = np.array(
            [stage.archiving_cost + (stage.reversal.undo_cost if stage.reversal else 0) for stage in stages],
            dtype=float,
        )
        advancing = np.array([stage.forward_cost for stage in stages], dtype=float)
        return cls(
            StageSums(counts, advancing),
            StageSums(counts, taping),
            StageSums(counts, undoing - taping),
            np.cumsum(counts),
        )


class Leaf(NamedTuple):
    """The cheapest way through a stretch, room by room."""

    cost: Costs
    """inf where nothing fits."""
    archived: Counts


@dataclass(frozen=True)
class Stretch:
    """Stages first..last without a checkpoint inside. Sizes in bytes."""

    first: int
    last: int
    entry_state: int
    """Of x_{first-1}, which undoing the first stage makes once more."""
    entry_gradient: int
    exit_gradient: int
    largest: Largest
    most_archived: int
    costs: ChainCosts
    wide: bool = False
    """Whether byte sums may leave 64 bits."""

    @property
    def length(self) -> int:
        """How many stages: n."""
        return self.last - self.first + 1

    def need_bytes(self, archived: Counts) -> Bytes:
        """What each of these numbers of archived stages takes at most, besides x_{first-1}."""
        bits: Bytes = archived.astype(self._dtype) * self.largest.archive
        undone = self._either(archived > 0, self._undoing_bytes(archived, bits), 0)
        taped = self._either(archived < self.length, self._taping_bytes(archived, bits), 0)
        need: Bytes = np.maximum(undone, taped)
        return need

    def _undoing_bytes(self, archived: Counts, bits: Bytes) -> Bytes:
        """To archive and undo 1 stage or more: most is live at the last one, the one before or the first."""
        size = self.largest
        stored = self._either(archived > 1, size.state, 0)  # the first one's input is counted elsewhere
        archiving = bits + stored + size.state + size.archive_workspace + self.exit_gradient

        def undoing(stage: Counts, held: Bytes | int) -> Bytes:
            before = self._either(stage > 1, size.state, self.entry_state)
            need: Bytes = held + before + size.state + self._gradients(stage) + size.undo_workspace
            return need

        need: Bytes = np.maximum(archiving, undoing(archived, bits))
        less = self._either(archived > 1, bits - size.archive, size.archive)
        need = np.maximum(need, undoing(np.maximum(archived - 1, 1), less))
        return np.maximum(need, undoing(np.ones_like(archived), size.archive))

    def _taping_bytes(self, archived: Counts, bits: Bytes) -> Bytes:
        """To tape and reverse the others, 1 or more: most is live at the last one, the one before or the
        first.
        """
        size, n = self.largest, self.length
        held = bits + self._either(archived > 0, size.state, 0)
        tapes: Bytes = (n - archived).astype(self._dtype) * size.tape

        def reversing(stage: Counts, taped: Bytes | int) -> Bytes:
            need: Bytes = held + taped + self._gradients(stage) + size.backward_workspace
            return need

        taping: Bytes = held + tapes + self.exit_gradient + size.taped_workspace
        need: Bytes = np.maximum(taping, reversing(np.full_like(archived, n), tapes))
        less = self._either(archived < n - 1, tapes - size.tape, tapes)
        need = np.maximum(need, reversing(np.maximum(archived + 1, n - 1), less))
        return np.maximum(need, reversing(archived + 1, size.tape))

    def _gradients(self, stage: Counts) -> Bytes:
        """The gradients of x_stage and of the state before it; stages count from 1 to n here."""
        inner = self.largest.gradient
        after = self._either(stage == self.length, self.exit_gradient, inner)
        return after + self._either(stage == 1, self.entry_gradient, inner)

    @property
    def _dtype(self) -> type:
        return object if self.wide else np.int64

    def _either(self, where: NDArray[np.bool_], yes: Bytes | int, no: Bytes | int) -> Bytes:
        return np.where(where, np.asarray(yes, dtype=self._dtype), np.asarray(no, dtype=self._dtype))

    def least_bytes(self) -> int:
        """The least that it can take."""
        return int(self.need_bytes(self._tried(np.zeros(0, dtype=self._dtype))).min())

    def leaf(self, rooms: Bytes) -> Leaf:
        """The cheapest number of archived stages for each of `rooms`, the least of several."""
        tried = self._tried(rooms)
        need = self.need_bytes(tried)
        before = self.first - 1
        cost = self.costs.taping.between(self.first, self.last) + (
            self.costs.excess.at(before + tried) - self.costs.excess.at(before)
        )
        ranked = np.lexsort((tried, cost))
        rank = np.empty(len(tried), dtype=np.int64)
        rank[ranked] = np.arange(len(tried))
        by_need = np.argsort(need, kind="stable")
        best = ranked[np.minimum.accumulate(rank[by_need])]
        fitting = np.searchsorted(need[by_need], rooms, side="right")
        chosen = best[np.maximum(fitting - 1, 0)]
        return Leaf(np.where(fitting > 0, cost[chosen], np.inf), tried[chosen])

    def _tried(self, rooms: Bytes) -> Counts:
        """Numbers of archived stages among which the cheapest for any of `rooms` is, and the leanest."""
        n, most = self.length, min(self.length, self.most_archived)
        if n <= MOST_TRIED:
            return np.arange(most + 1)
        low, high = self.first, self.last
        turns = self.costs.turns
        inside = turns[np.searchsorted(turns, low) : np.searchsorted(turns, high)] - low + 1
        if len(inside) > MOST_TURNS:
            inside = inside[np.linspace(0, len(inside) - 1, MOST_TURNS).astype(np.int64)]
        ends = np.array([0, 1, 2, 3, n - 3, n - 2, n - 1, n, most], dtype=np.int64)
        tried = np.concatenate([ends, inside, self._bends(rooms)])
        return np.unique(tried[(tried >= 0) & (tried <= most)])

    def _bends(self, rooms: Bytes) -> Counts:
        """Where the rooms cut the two lines that the need follows away from its ends, and where these meet:
        what archiving and undoing take, and what taping does.
        """
        size, n = self.largest, self.length
        reversing = 2 * size.gradient + size.backward_workspace
        undone = 2 * size.state + max(
            size.archive_workspace + self.exit_gradient, size.undo_workspace + 2 * size.gradient
        )
        taped = size.state + n * size.tape
        taped += max(
            self.exit_gradient + size.taped_workspace,
            self.exit_gradient + size.gradient + size.backward_workspace,
            reversing - size.tape,
        )
        saved = size.tape - size.archive
        cuts = [np.array([(taped - undone) // size.tape] if size.tape else [], dtype=rooms.dtype)]
        cuts += [(rooms - undone) // size.archive] if size.archive else []
        cuts += [(taped - rooms) // saved] if saved else []
        near = np.concatenate(cuts)
        near = near[(near >= -1) & (near <= n)].astype(np.int64)
        return np.concatenate([near, near + 1])
