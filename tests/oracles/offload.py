"""The least makespan over *all* schedules with storage tiers that block, by shortest-path search.

The graph of `exhaustive.py` with what each tier holds, and three edges more: writing a checkpoint to a
tier, reading it back and dropping the tier's copy. Costs are those of the stages and of the transfers.
For L up to 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush

from planner_service.chain import Chain
from planner_service.chain.tiers import Tier
from tests.oracles.exhaustive import Graph, Held

Node = tuple[Held, tuple[int, ...]]


class TieredGraph(Graph):
    """The machine on one chain, one device budget and blocking tiers."""

    def __init__(self, chain: Chain, budget_bytes: int, tiers: Sequence[Tier]) -> None:
        super().__init__(chain, budget_bytes)
        self.tiers = tiers

    def tiered_optimum(self) -> float | None:
        """The least makespan, or None when no schedule fits."""
        start: Node = (Held(0, 0, 0, self.length), (0,) * len(self.tiers))
        best = {start: 0.0}
        queue = [(self._still_due(start[0]), start)]
        closed: set[Node] = set()
        while queue:
            _, node = heappop(queue)
            if node in closed:
                continue
            if node[0].gradient == 0:
                return best[node]
            closed.add(node)
            for cost, after in self._tiered_edges(node):
                total = best[node] + cost
                if total < best.get(after, float("inf")):
                    best[after] = total
                    heappush(queue, (total + self._still_due(after[0]), after))
        return None

    def _tiered_edges(self, node: Node) -> Iterator[tuple[float, Node]]:
        held, stored = node
        for cost, after in self._edges(held):
            useful = (1 << after.gradient) - 1  # a state at or after the gradient's is of no further use
            yield cost, (after, tuple(states & useful for states in stored))
        for number in range(len(self.tiers)):
            for state in range(1, held.gradient):
                yield from self._transfers(held, stored, number, state)

    def _transfers(
        self, held: Held, stored: tuple[int, ...], number: int, state: int
    ) -> Iterator[tuple[float, Node]]:
        tier, size, bit = self.tiers[number], self.state_bytes[state], 1 << state
        toggled = (*stored[:number], stored[number] ^ bit, *stored[number + 1 :])
        if stored[number] & bit:
            yield 0, (held, toggled)
            if not held.checkpoints & bit and size <= self.free_bytes - self._live(held):
                yield tier.read_seconds(size), (held._replace(checkpoints=held.checkpoints | bit), stored)
        elif held.checkpoints & bit and self._fits(toggled[number], tier):
            yield tier.write_seconds(size), (held, toggled)

    def _fits(self, states: int, tier: Tier) -> bool:
        sizes = (self.state_bytes[state] for state in range(1, self.length) if states >> state & 1)
        return sum(sizes) <= tier.budget_bytes


def exhaustive_offload_optimum(chain: Chain, budget_bytes: int, tiers: Sequence[Tier]) -> float | None:
    """The least makespan of any schedule of `chain` with these blocking tiers; None when none fits."""
    return TieredGraph(chain, budget_bytes, tiers).tiered_optimum()
