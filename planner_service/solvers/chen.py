"""Chen's recursive scheme: cut into k + 1 segments, and each segment again.

Source: Chen, Xu, Zhang, Guestrin (2016), arXiv:1604.06174, section 4.4: memory g(n) = k + g(n / (k + 1)),
time O(n log n / log k). The number of cuts k is chosen: the cheapest that fits. O(log L) policies counted.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from planner_service.chain import (
    EMPTY,
    BudgetTooSmall,
    Chain,
    CheckpointNode,
    Policy,
    PolicyNode,
    TapeNode,
)
from planner_service.solvers.draft import Draft
from planner_service.solvers.prices import price_list_of
from planner_service.solvers.solution import Cancellation
from planner_service.solvers.subproblems import fold


class _Segments(NamedTuple):
    """So many segments of so many stages; the last one may have fewer."""

    stages: int
    number: int


def recursive_policy(length: int, cuts: int) -> Policy:
    """`cuts` evenly spaced checkpoints, the same inside every segment, down to single stages."""
    nodes: list[PolicyNode] = []

    def write(here: _Segments, indices: list[int]) -> int:
        if not indices:
            nodes.append(TapeNode(1, EMPTY))
            return len(nodes) - 1
        segment, right = indices
        for _ in range(here.number - 1):
            nodes.append(CheckpointNode(here.stages, right, segment))
            right = len(nodes) - 1
        return right

    root = fold(length, partial(_cut, cuts=cuts), write)
    return Policy(tuple(nodes), root)


def _cut(length: int, cuts: int) -> tuple[_Segments, tuple[int, ...]]:
    """The segments of `length` stages, and the lengths of one of them and of the last."""
    if length == 1:
        return _Segments(1, 1), ()
    stages = -(-length // (cuts + 1))
    number = -(-length // stages)
    return _Segments(stages, number), (stages, length - (number - 1) * stages)


def draft_chen_recursive(chain: Chain, budget_bytes: int, cancellation: Cancellation) -> Draft:
    """The cheapest number of cuts that fits. Raises BudgetTooSmall, Cancelled."""
    best: tuple[float, int] | None = None
    leanest: int | None = None
    price_list = price_list_of(chain)
    cuts = 1
    while cuts < 2 * chain.length:
        cancellation.check()
        prices = price_list.prices(recursive_policy, cuts, cancellation)
        leanest = prices.peak_bytes if leanest is None else min(leanest, prices.peak_bytes)
        if prices.peak_bytes <= budget_bytes and (best is None or (prices.makespan, cuts) < best):
            best = prices.makespan, cuts
        cuts = cuts + max(1, cuts // 2)
    if best is None:
        raise BudgetTooSmall(budget_bytes=budget_bytes, minimum_budget_bytes=leanest or 0)
    policy = recursive_policy(chain.length, best[1])
    return Draft("chen_recursive", policy, "bounded", f"{best[1]} cuts at every depth")
