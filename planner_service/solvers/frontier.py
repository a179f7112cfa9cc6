"""Every budget at once: the non-dominated (bytes, makespan) pairs of a chain, from one table.

A table over memory levels holds the answer to every budget that is a level. Where all byte sizes are
multiples of a common unit and there are few enough of them, the levels are all the budgets that matter
and the frontier is complete; otherwise it is sampled. Each point is reached by a policy that `solve`
finds with that budget, or by a better one.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import NamedTuple

import numpy as np

from planner_service.chain import Chain
from planner_service.solvers.grouping import Grouping, group_evenly, ungrouped
from planner_service.solvers.intervals import IntervalTable, additions_per_level
from planner_service.solvers.leanest import least_free_bytes
from planner_service.solvers.levels import Levels
from planner_service.solvers.minorant import MinorantTable
from planner_service.solvers.needs import REVERSE_NEED, Bytes, ChainNeeds, chain_needs
from planner_service.solvers.optimal import MOST_GROUPS
from planner_service.solvers.search import PolicySearch
from planner_service.solvers.sections import Sections
from planner_service.solvers.solution import Cancellation
from planner_service.solvers.wide import is_wide

MOST_INTERVAL_LEVELS = 4_000
MOST_FAMILY_LEVELS = 20_000
MOST_ADVANCES = 100
"""Long chains: points where each stage is advanced more often than this are left out."""
LONG_BODY = 5_000
AFFORDABLE_ADDITIONS = 2_000_000_000


class FrontierPoint(NamedTuple):
    """The least budget known for a makespan."""

    budget_bytes: int
    makespan: float
    """In the chain's cost unit."""


def frontier(
    chain: Chain, *, most_points: int = 200, cancellation: Cancellation | None = None
) -> list[FrontierPoint]:
    """Budgets from the least that fits to that of full backpropagation, each with its makespan.

    Ascending in bytes, strictly descending in makespan; about `most_points` of them at most. Raises
    Cancelled.
    """
    cancellation = cancellation or Cancellation()
    needs = chain_needs(chain)
    held = chain.static_bytes + chain.input_bytes
    points = [FrontierPoint(held + needs.store_all_bytes, chain.store_all_makespan)]
    if not is_wide(needs):
        for free_bytes, cost in _costs(needs, most_points, cancellation):
            points.append(FrontierPoint(held + free_bytes, chain.store_all_makespan + cost))
    return _thinned(_non_dominated(points), most_points)


def knee(points: list[FrontierPoint]) -> FrontierPoint:
    """The point furthest below the line from the first to the last, both axes scaled to 0..1."""
    first, last = points[0], points[-1]
    width = max(1, last.budget_bytes - first.budget_bytes)
    height = first.makespan - last.makespan or 1.0

    def depth(point: FrontierPoint) -> float:
        along = (point.budget_bytes - first.budget_bytes) / width
        down = (first.makespan - point.makespan) / height
        return down - along

    return max(points, key=depth)


def _costs(needs: ChainNeeds, most_points: int, cancellation: Cancellation) -> Iterator[tuple[int, float]]:
    """Free bytes and the recomputation cost of a policy that fits them."""
    sections = Sections(needs)
    if sections.convex and additions_per_level(needs) * most_points > AFFORDABLE_ADDITIONS // 20:
        yield from _costs_by_families(sections, most_points, cancellation)
        return
    grouping = ungrouped(needs)
    if additions_per_level(needs) * 500 > AFFORDABLE_ADDITIONS:
        grouping = group_evenly(needs, MOST_GROUPS)
    yield from _costs_by_intervals(grouping, cancellation)


def _costs_by_intervals(grouping: Grouping, cancellation: Cancellation) -> Iterator[tuple[int, float]]:
    needs = grouping.needs
    affordable = AFFORDABLE_ADDITIONS // max(1, additions_per_level(needs))
    levels = _levels(needs, max(500, min(MOST_INTERVAL_LEVELS, affordable)), cancellation)
    costs = IntervalTable(needs, levels, cancellation).cost(0, needs.length - 1)
    yield from zip(levels.free_bytes.tolist(), costs.tolist(), strict=True)


def _costs_by_families(
    sections: Sections, most_points: int, cancellation: Cancellation
) -> Iterator[tuple[int, float]]:
    levels = _levels(sections.needs, MOST_FAMILY_LEVELS, cancellation)
    search = PolicySearch(MinorantTable(sections, levels, cancellation), cancellation)
    unit = sections.unit_cost
    least = least_free_bytes(sections.needs, cancellation)
    feasible = levels.free_bytes[levels.free_bytes >= least]
    # More points where memory is scarce: that is where a byte buys most.
    picks = np.unique(np.geomspace(1, len(feasible), most_points).astype(np.int64)) - 1
    affordable = MOST_ADVANCES if sections.body_stages > LONG_BODY else sections.body_stages
    for free_bytes in feasible[picks].tolist():
        if search.least_cost(free_bytes) <= affordable * sections.body_stages:
            yield free_bytes, search.run(free_bytes) * unit


def _levels(needs: ChainNeeds, most_levels: int, cancellation: Cancellation) -> Levels:
    """Every budget at which anything can change, or `most_levels` spread between the extremes."""
    lowest, highest = int(needs.table[:, REVERSE_NEED].min()), needs.store_all_bytes
    unit = int(np.gcd.reduce(needs.table, axis=None)) or 1
    if (highest - lowest) // unit < most_levels:
        return Levels(np.arange(lowest, highest + 1, unit, dtype=np.int64), exact=True)
    least = least_free_bytes(needs, cancellation)
    steps: Bytes = np.linspace(lowest, highest, most_levels - 1).astype(np.int64)
    return Levels(np.unique(np.append(steps, least)), exact=False)


def _non_dominated(points: list[FrontierPoint]) -> list[FrontierPoint]:
    kept: list[FrontierPoint] = []
    fastest = inf
    for point in sorted(points):
        if point.makespan < fastest:
            kept.append(point)
            fastest = point.makespan
    return kept


def _thinned(points: list[FrontierPoint], most_points: int) -> list[FrontierPoint]:
    """At most `most_points` of them, the ends included."""
    picks = np.unique(np.linspace(0, len(points) - 1, min(most_points, len(points))).astype(np.int64))
    return [points[pick] for pick in picks.tolist()]
