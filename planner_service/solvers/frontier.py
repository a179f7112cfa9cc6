"""Every budget at once: the non-dominated (bytes, makespan) pairs of a chain.

Where all byte sizes are multiples of a common unit and there are few enough of them, one table over
these levels holds the answer to every budget that matters, and the frontier is complete. Otherwise it
is sampled, budget by budget. Either way a point is what `solve` answers to its budget.
"""

from __future__ import annotations

from math import isfinite

import numpy as np

from planner_service.chain import BudgetTooSmall, Chain
from planner_service.solvers.frontier_points import FrontierPoint, non_dominated, thinned
from planner_service.solvers.frontier_sampling import sampled
from planner_service.solvers.intervals import IntervalTable, additions_per_level
from planner_service.solvers.levels import Levels
from planner_service.solvers.needs import REVERSE_NEED, ChainNeeds, chain_needs
from planner_service.solvers.offload.solve import OffloadSolution
from planner_service.solvers.optimal import AFFORDABLE_ADDITIONS, minimum_budget_bytes
from planner_service.solvers.sections import Sections
from planner_service.solvers.solution import Cancellation, Solution
from planner_service.solvers.solve import solve
from planner_service.solvers.wide import is_wide

MOST_LEVELS = 4_000
MOST_ADDITIONS = 500_000_000
"""A table takes half a second at most. With so few `solve` counts every byte too: the answers agree."""
FEWEST_POINTS, MOST_POINTS = 8, 500
ADDITIONS_OF_ALL_POINTS = 8 * AFFORDABLE_ADDITIONS
"""Half a minute of tables by intervals, at a budget each."""


def frontier(
    chain: Chain, *, most_points: int = 200, cancellation: Cancellation | None = None
) -> list[FrontierPoint]:
    """Budgets from the least that fits to that of full backpropagation, each with its makespan.

    Ascending in bytes, strictly descending in makespan; at most `most_points` (2 or more) of them, and
    `affordable_points` where budgets are planned one by one. Each makespan is that of `solve` with that
    budget. Raises Cancelled.
    """
    cancellation = cancellation or Cancellation()
    needs = chain_needs(chain)
    # The table is of policies that undo nothing.
    levels = None if is_wide(needs) or chain.is_reversible else _all_levels(needs)
    if levels is not None:
        return thinned(_tabulated(chain, needs, levels, cancellation), most_points)

    def price(budget_bytes: int) -> FrontierPoint:
        solution = solve(chain, budget_bytes, cancellation=cancellation)
        return FrontierPoint(sufficient_bytes(solution, budget_bytes), solution.verdict.makespan)

    return sampled(
        price,
        least_bytes=_least_bytes(chain, cancellation),
        most_bytes=_held_bytes(chain) + needs.store_all_bytes,
        most_points=min(most_points, affordable_points(chain)),
    )


def _least_bytes(chain: Chain, cancellation: Cancellation) -> int:
    if not chain.is_reversible:
        return minimum_budget_bytes(chain, cancellation=cancellation)
    try:
        return solve(chain, 0, cancellation=cancellation).verdict.peak_bytes
    except BudgetTooSmall as refusal:
        return refusal.minimum_budget_bytes


def affordable_points(chain: Chain) -> int:
    """Points that can be planned one by one in reasonable time: fewer where all stages differ."""
    needs = chain_needs(chain)
    if is_wide(needs) or Sections(needs).convex:
        return MOST_POINTS
    additions = min(additions_per_level(needs) * MOST_LEVELS, AFFORDABLE_ADDITIONS)
    return min(MOST_POINTS, max(FEWEST_POINTS, ADDITIONS_OF_ALL_POINTS // max(1, additions)))


def sufficient_bytes(solution: Solution | OffloadSolution, budget_bytes: int) -> int:
    """The least budget known to give a plan as quick as `solution`, which is that of `budget_bytes`.

    An optimum is the optimum of its own peak as well, if its search is exact: free bytes that are rounded
    are others there, and a plan that met the bound by luck need not be found.
    """
    found_again = isinstance(solution, Solution) and solution.exact_search
    return solution.verdict.peak_bytes if found_again else budget_bytes


def _held_bytes(chain: Chain) -> int:
    return chain.static_bytes + chain.input_bytes


def _all_levels(needs: ChainNeeds) -> Levels | None:
    """Every budget at which anything can change; None where a table of them would take too long."""
    lowest, highest = int(needs.table[:, REVERSE_NEED].min()), needs.store_all_bytes
    unit = int(np.gcd.reduce(needs.table, axis=None)) or 1
    count = (highest - lowest) // unit + 1
    if count > MOST_LEVELS or count * additions_per_level(needs) > MOST_ADDITIONS:
        return None
    # Not a range with a stop: numpy counts its steps in floats, which may lose the last one.
    return Levels(lowest + unit * np.arange(count, dtype=np.int64), exact=True)


def _tabulated(
    chain: Chain, needs: ChainNeeds, levels: Levels, cancellation: Cancellation
) -> list[FrontierPoint]:
    """The complete frontier."""
    costs = IntervalTable(needs, levels, cancellation).cost(0, needs.length - 1)
    held = _held_bytes(chain)
    return non_dominated(
        FrontierPoint(held + free_bytes, chain.store_all_makespan + cost)
        for free_bytes, cost in zip(levels.free_bytes.tolist(), costs.tolist(), strict=True)
        if isfinite(cost)
    )
