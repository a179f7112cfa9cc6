"""The two-branch recurrence over intervals of stages: any chain that is short enough to tabulate."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np

from planner_service.chain import EMPTY, CheckpointNode, Policy, PolicyNode, TapeNode
from planner_service.solvers import kernels
from planner_service.solvers.levels import Levels
from planner_service.solvers.needs import STATE, TAPE_BYTES, Bytes, ChainNeeds, Costs
from planner_service.solvers.solution import Cancellation


def least_free_bytes(needs: ChainNeeds, cancellation: Cancellation) -> int:
    """Least free bytes (beyond static bytes and x_0) for which some policy reverses the chain.

    O(L^3) time on a heterogeneous chain, O(L^2) on a nearly homogeneous one.
    """
    length, body = needs.length, needs.body
    least = np.empty(kernels.row_count(length, *body), dtype=np.int64)
    kernels.fill_least_bytes(needs.kind, needs.table, *body, least, cancellation.flag)
    cancellation.check()
    return int(least[kernels.row_of(0, length - 1, length, *body)])


class IntervalTable:
    """Least recomputation cost of every interval at every level, and the policy that it implies."""

    def __init__(self, needs: ChainNeeds, levels: Levels, cancellation: Cancellation) -> None:
        self._needs = needs
        self._levels = levels
        self.costs = np.empty((kernels.row_count(needs.length, *needs.body), len(levels.free_bytes)))
        kernels.fill_costs(
            needs.kind,
            needs.advance_cost_before,
            needs.table,
            levels.free_bytes,
            levels.floor(needs.table[:, STATE]),
            levels.floor(needs.table[:, TAPE_BYTES]),
            *needs.body,
            self.costs,
            cancellation.flag,
        )
        cancellation.check()

    @cached_property
    def whole_chain(self) -> Costs:
        """Recomputation cost of the whole chain at every level; infinite where nothing fits."""
        length = self._needs.length
        row: Costs = self.costs[kernels.row_of(0, length - 1, length, *self._needs.body)]
        return row

    def policy(self, free_bytes: int) -> Policy:
        """The best policy with `free_bytes`; equal subproblems share their node."""
        return _PolicyBuilder(self._needs, self._levels.free_bytes, self.costs).build(free_bytes)


class _Subproblem(NamedTuple):
    first: int
    """First stage, counted from 0."""
    last: int
    free_bytes: int


class _Decision(NamedTuple):
    node: type[TapeNode] | type[CheckpointNode]
    span: int
    children: tuple[_Subproblem, ...]


class _PolicyBuilder:
    """Walks the decisions depth first without recursion; children get their nodes before parents."""

    def __init__(self, needs: ChainNeeds, levels: Bytes, costs: Costs) -> None:
        self._needs = needs
        self._levels = levels
        self._costs = costs
        self._nodes: list[PolicyNode] = []
        self._index: dict[_Subproblem, int] = {}

    def build(self, free_bytes: int) -> Policy:
        root = self._canonical(0, self._needs.length - 1, free_bytes)
        decisions: dict[_Subproblem, _Decision] = {}
        pending = [root]
        while pending:
            here = pending[-1]
            if here not in decisions:
                decisions[here] = self._decide(here)
                pending.extend(child for child in decisions[here].children if child not in self._index)
                continue
            pending.pop()
            if here not in self._index:
                self._index[here] = len(self._nodes)
                self._nodes.append(self._node(decisions[here]))
        return Policy(tuple(self._nodes), self._index[root])

    def _node(self, decision: _Decision) -> PolicyNode:
        children = [self._index[child] for child in decision.children]
        if decision.node is TapeNode:
            return TapeNode(decision.span, *(children or [EMPTY]))
        return CheckpointNode(decision.span, *children)

    def _decide(self, here: _Subproblem) -> _Decision:
        """The decision; consecutive tapes become one."""
        first, last, free = here
        stored = self._stored(here)
        if stored != kernels.TAPE:
            remaining = free - int(self._needs.table[self._needs.kind[stored], STATE])
            right = self._canonical(stored + 1, last, remaining)
            left = self._canonical(first, stored, free)
            return _Decision(CheckpointNode, stored - first + 1, (right, left))
        while stored == kernels.TAPE:
            free -= int(self._needs.table[self._needs.kind[first], TAPE_BYTES])
            first += 1
            if first > last:
                return _Decision(TapeNode, last - here.first + 1, ())
            stored = self._stored(_Subproblem(first, last, free))
        return _Decision(TapeNode, first - here.first, (self._canonical(first, last, free),))

    def _stored(self, here: _Subproblem) -> int:
        """The stage after which to store a checkpoint, or kernels.TAPE."""
        needs = self._needs
        return int(
            kernels.decide(
                here.first,
                here.last,
                here.free_bytes,
                needs.kind,
                needs.advance_cost_before,
                needs.table,
                self._levels,
                *needs.body,
                self._costs,
            )
        )

    def _canonical(self, first: int, last: int, free_bytes: int) -> _Subproblem:
        body_first, body_last = self._needs.body
        if first > body_first and last <= body_last:
            return _Subproblem(body_first, last - first + body_first, free_bytes)
        return _Subproblem(first, last, free_bytes)
