"""The least makespan over *all* schedules of the simulator's machine, by shortest-path search.

A node of the graph is what the machine holds: the stored states, the taped stages, which tape refers
to a checkpoint, and the state whose gradient is live. An edge is one action on one stage, with its
cost, and exists when the bytes that are live while it runs stay within the budget. A* with the cost
that no schedule can avoid (taping what is not taped, reversing what is not reversed) as the guide.
Nothing here comes from a recurrence, and nothing from the simulator. O(6^L) nodes: for L up to 8.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import NamedTuple

from planner_service.chain import Chain, Stage


class Held(NamedTuple):
    """Bit i of a set stands for state or stage i."""

    checkpoints: int
    tapes: int
    pinned: int
    """Checkpoints that a live tape refers to."""
    gradient: int
    archived: int = 0
    """Stages whose lost bits are kept."""


class Graph:
    """The machine of docs/memory_model.md, on one chain and one budget."""

    def __init__(self, chain: Chain, budget_bytes: int) -> None:
        self.stages = list(chain.stages())
        self.length = len(self.stages)
        self.state_bytes = [chain.input_bytes, *(stage.state_bytes for stage in self.stages)]
        self.gradient_bytes = [chain.gradient_bytes(index) for index in range(self.length + 1)]
        self.free_bytes = budget_bytes - chain.static_bytes - chain.input_bytes

    def optimum(self) -> float | None:
        """The least makespan, or None when no schedule fits."""
        start = Held(0, 0, 0, self.length)
        best = {start: 0.0}
        queue: list[tuple[float, Held]] = [(self._still_due(start), start)]
        closed: set[Held] = set()
        while queue:
            _, held = heappop(queue)
            if held in closed:
                continue
            if held.gradient == 0:
                return best[held]
            closed.add(held)
            for cost, after in self._edges(held):
                total = best[held] + cost
                if total < best.get(after, float("inf")):
                    best[after] = total
                    heappush(queue, (total + self._still_due(after), after))
        return None

    def _still_due(self, held: Held) -> float:
        return sum(self._due(held, index) for index in range(1, held.gradient + 1))

    def _due(self, held: Held, index: int) -> float:
        stage = self.stages[index - 1]
        if held.tapes >> index & 1:
            return stage.backward_cost
        taping = stage.taped_forward_cost + stage.backward_cost
        if stage.reversal is None:
            return taping
        return stage.reversal.undo_cost if held.archived >> index & 1 else min(taping, self._undoing(index))

    def _undoing(self, index: int) -> float:
        stage = self.stages[index - 1]
        return self._archiving_cost(stage) + stage.reversal.undo_cost

    def _archiving_cost(self, stage: Stage) -> float:
        given = stage.reversal.archive_cost
        return stage.forward_cost if given is None else given

    def _live(self, held: Held) -> int:
        stored = sum(self.state_bytes[i] for i in range(1, self.length + 1) if held.checkpoints >> i & 1)
        taped = sum(stage.tape_bytes for i, stage in enumerate(self.stages, 1) if held.tapes >> i & 1)
        archived = sum(
            stage.reversal.archive_bytes for i, stage in enumerate(self.stages, 1) if held.archived >> i & 1
        )
        return stored + taped + archived + self.gradient_bytes[held.gradient]

    def _edges(self, held: Held) -> Iterator[tuple[float, Held]]:
        room = self.free_bytes - self._live(held)
        yield from self._backward(held, room)
        yield from self._undo(held, room)
        for index in range(1, held.gradient + 1):
            bit = 1 << index
            if held.checkpoints & bit and not held.pinned & bit:
                yield 0, held._replace(checkpoints=held.checkpoints & ~bit)
            if index == 1 or (held.checkpoints | held.tapes) >> (index - 1) & 1:
                yield from self._advance(held, index, room)
                yield from self._tape(held, index, room)
                yield from self._archive(held, index, room)

    def _archive(self, held: Held, index: int, room: int) -> Iterator[tuple[float, Held]]:
        stage, bit = self.stages[index - 1], 1 << index
        if stage.reversal is None or (held.checkpoints | held.tapes | held.archived) & bit:
            return
        given = stage.reversal.archive_workspace_bytes
        workspace = stage.forward_workspace_bytes if given is None else given
        if stage.state_bytes + stage.reversal.archive_bytes + workspace <= room:
            archived = held._replace(checkpoints=held.checkpoints | bit, archived=held.archived | bit)
            yield self._archiving_cost(stage), archived

    def _undo(self, held: Held, room: int) -> Iterator[tuple[float, Held]]:
        index, bit = held.gradient, 1 << held.gradient
        reversal = self.stages[index - 1].reversal
        if not (held.archived & bit and held.checkpoints & bit):
            return
        if (
            self.state_bytes[index - 1] + self.gradient_bytes[index - 1] + reversal.undo_workspace_bytes
            <= room
        ):
            before = 1 << (index - 1) if index > 1 else 0
            yield (
                reversal.undo_cost,
                Held(
                    (held.checkpoints & ~bit) | before,
                    held.tapes,
                    held.pinned,
                    index - 1,
                    held.archived & ~bit,
                ),
            )

    def _backward(self, held: Held, room: int) -> Iterator[tuple[float, Held]]:
        index = held.gradient
        stage = self.stages[index - 1]
        if (
            held.tapes >> index & 1
            and stage.backward_workspace_bytes + self.gradient_bytes[index - 1] <= room
        ):
            yield (
                stage.backward_cost,
                # A state at or after the gradient's is of no further use: it goes too.
                Held(
                    held.checkpoints & ~(1 << index),
                    held.tapes & ~(1 << index),
                    held.pinned & ~(1 << (index - 1)),
                    index - 1,
                    held.archived,
                ),
            )

    def _advance(self, held: Held, index: int, room: int) -> Iterator[tuple[float, Held]]:
        stage = self.stages[index - 1]
        useful = index < held.gradient and not held.checkpoints >> index & 1
        if useful and stage.state_bytes + stage.forward_workspace_bytes <= room:
            yield stage.forward_cost, held._replace(checkpoints=held.checkpoints | 1 << index)

    def _tape(self, held: Held, index: int, room: int) -> Iterator[tuple[float, Held]]:
        stage = self.stages[index - 1]
        if (held.tapes | held.archived) >> index & 1:
            return
        if stage.tape_bytes + stage.taped_forward_workspace_bytes <= room:
            refers = index > 1 and not held.tapes >> (index - 1) & 1
            pinned = held.pinned | 1 << (index - 1) if refers else held.pinned
            yield stage.taped_forward_cost, held._replace(tapes=held.tapes | 1 << index, pinned=pinned)


def exhaustive_optimum(chain: Chain, budget_bytes: int) -> float | None:
    """The least makespan of any schedule of `chain` within the budget; None when there is none."""
    return Graph(chain, budget_bytes).optimum()
