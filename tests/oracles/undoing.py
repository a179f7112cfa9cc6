"""The cheapest policy that archives or tapes stretches between checkpoints, every one of them tried.

What a stretch or an advance takes and costs is read off the simulator's replay of it on a chain of its own;
nothing is shared with the solver. O(L^4) replays: for chains of up to a dozen stages.
"""

from __future__ import annotations

from functools import cache
from math import inf
from typing import NamedTuple

from planner_service.chain import (
    EMPTY,
    Advance,
    ArchiveNode,
    Chain,
    Policy,
    PolicyNode,
    StageRun,
    TapeNode,
    expand,
    moments,
    simulate,
)


class Price(NamedTuple):
    need_bytes: int
    """Beside static bytes and the stored state that it begins from."""
    cost: float


class UndoingPolicies:
    """The policies of one chain, priced."""

    def __init__(self, chain: Chain, most_archived: int | None = None) -> None:
        self._chain = chain
        self._most = chain.length if most_archived is None else most_archived
        self._stages = list(chain.stages())
        self._leaves = {
            (first, last): [self._leaf(first, last, y) for y in range(min(last - first + 1, self._most) + 1)]
            for first in range(1, chain.length + 1)
            for last in range(first, chain.length + 1)
        }

    def cheapest(self, budget_bytes: int) -> float:
        """The least makespan within the budget; inf where nothing fits."""
        chain = self._chain

        @cache
        def best(first: int, last: int, room: int) -> float:
            tried = [leaf.cost for leaf in self._leaves[first, last] if leaf.need_bytes <= room]
            for stored in range(first, last):
                advance = self._advance(first, stored, last)
                if advance.need_bytes <= room:
                    right = best(stored + 1, last, room - chain.state_bytes(stored))
                    tried.append(advance.cost + right + best(first, stored, room))
            return min(tried, default=inf)

        return best(1, chain.length, budget_bytes - chain.static_bytes - chain.input_bytes)

    def _leaf(self, first: int, last: int, archived: int) -> Price:
        taped = last - first + 1 - archived
        nodes: list[PolicyNode] = [TapeNode(taped, EMPTY)] if taped else []
        if archived:
            nodes.append(ArchiveNode(archived, len(nodes) - 1))
        piece = self._piece(first, last)
        verdict = simulate(piece, expand(Policy(tuple(nodes), len(nodes) - 1)))
        return Price(verdict.peak_bytes - piece.input_bytes, verdict.makespan)

    def _advance(self, first: int, stored: int, last: int) -> Price:
        piece = self._piece(first, last)
        moment = next(moments(piece, [Advance(1, stored - first + 1)]))
        return Price(moment.peak_bytes - piece.input_bytes, moment.cost)

    def _piece(self, first: int, last: int) -> Chain:
        return Chain(
            tuple(StageRun(1, stage) for stage in self._stages[first - 1 : last]),
            input_bytes=self._chain.state_bytes(first - 1),
            input_gradient_bytes=self._chain.gradient_bytes(first - 1),
            loss_gradient_bytes=self._chain.gradient_bytes(last),
        )
