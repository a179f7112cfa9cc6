"""What the policies of a one-parameter strategy cost on a chain, counted once for all budgets.

A search for the least budget asks the same strategy about the same chain again and again, and the
policies among which it chooses do not depend on the budget. A replay looks at every action, of which long
chains have millions; equal subproblems share a node, so counting node by node looks at few. The simulator
judges the policy that is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

from planner_service.chain import EMPTY, ArchiveNode, Chain, Policy, PolicyNode, TapeNode
from planner_service.solvers.needs import ChainNeeds, NeedsRun, chain_needs
from planner_service.solvers.policies import canonical
from planner_service.solvers.solution import Cancellation
from planner_service.solvers.stretch_sums import StretchSums
from planner_service.solvers.subproblems import fold

CHAINS = 4
"""Chains that are remembered: a comparison looks at one for long, and a long chain takes memory."""


class Prices(NamedTuple):
    """What a policy costs."""

    makespan: float
    """In the chain's cost unit."""
    peak_bytes: int


class PriceList:
    """The prices of the policies of one chain that have been asked for."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._needs = chain_needs(chain)
        self._sums = StretchSums(self._needs)
        self._known: dict[tuple[Callable[[int, int], Policy], int], Prices] = {}

    def prices(
        self,
        policy_of: Callable[[int, int], Policy],
        parameter: int,
        cancellation: Cancellation | None = None,
    ) -> Prices:
        """Those of `policy_of(length, parameter)`, of tapes and checkpoints. Raises Cancelled."""
        key = policy_of, parameter
        if key not in self._known:
            policy = policy_of(self._chain.length, parameter)
            found = _Count(self._needs, self._sums, policy).whole(cancellation or Cancellation())
            self._known[key] = Prices(
                self._chain.store_all_makespan + found.advance_cost,
                self._chain.static_bytes + self._chain.input_bytes + found.free_bytes,
            )
        return self._known[key]


@lru_cache(maxsize=CHAINS)
def price_list_of(chain: Chain) -> PriceList:
    """The prices on `chain` so far."""
    return PriceList(chain)


class _Place(NamedTuple):
    """A node due at a stage, counted from 0."""

    node: int
    first: int


class _Counted(NamedTuple):
    """What a node takes at its place."""

    advance_cost: float
    free_bytes: int
    """Needed beside its input state and what is held outside."""


class _Count:
    """The counting of one policy."""

    def __init__(self, needs: ChainNeeds, sums: StretchSums, policy: Policy) -> None:
        self._needs = needs
        self._sums = sums
        self._policy = policy
        self._lengths = _lengths(policy.nodes)

    def whole(self, cancellation: Cancellation) -> _Counted:
        """What the whole policy takes. Raises Cancelled."""

        def take(here: _Place) -> tuple[_Place, list[_Place]]:
            return here, self._children(here)

        return fold(_Place(self._policy.root, 0), take, self._counted, cancellation)

    def _children(self, here: _Place) -> list[_Place]:
        """What follows the node's span, then what comes back to it; each moved as equal subproblems are."""
        node = self._policy.nodes[here.node]
        starts = (here.first + node.span, here.first)
        places = zip(node[1:], starts, strict=False)
        return [self._moved(_Place(child, first)) for child, first in places if child != EMPTY]

    def _moved(self, place: _Place) -> _Place:
        last = place.first + self._lengths[place.node] - 1
        return place._replace(first=canonical(self._needs, place.first, last, 0).first)

    def _counted(self, here: _Place, children: list[_Counted]) -> _Counted:
        node, first = self._policy.nodes[here.node], here.first
        last = first + node.span - 1
        gradient = self._needs.stage(first + self._lengths[here.node] - 1).gradient_bytes
        if isinstance(node, TapeNode):
            taped, need = _taping(self._sums.runs(first, last), gradient)
            rest = children[0] if children else _Counted(0, 0)
            return _Counted(rest.advance_cost, max(need, taped + rest.free_bytes))
        advance = self._sums.advance(first, last)
        right, left = children
        stored = self._needs.stage(last).state_bytes
        return _Counted(
            advance.cost + right.advance_cost + left.advance_cost,
            max(gradient + advance.free_bytes, stored + right.free_bytes, left.free_bytes),
        )


def _taping(parts: Iterator[NeedsRun], gradient_bytes: int) -> tuple[int, int]:
    """The bytes of the tapes, and those that making and reversing them takes."""
    taped = need = 0
    for count, stage in ((part.count, part.needs) for part in parts):
        # Within a run the last stage is the one that sees the most tapes.
        before = taped + (count - 1) * stage.tape_bytes
        need = max(need, before + gradient_bytes + stage.tape_need_bytes, before + stage.reverse_need_bytes)
        taped += count * stage.tape_bytes
    return taped, need


def _lengths(nodes: tuple[PolicyNode, ...]) -> list[int]:
    """Stages that each node reverses."""
    lengths: list[int] = []
    for node in nodes:
        if isinstance(node, ArchiveNode):
            raise TypeError("only policies of tapes and checkpoints are counted")
        after = node[1]
        lengths.append(node.span + (0 if after == EMPTY else lengths[after]))
    return lengths
