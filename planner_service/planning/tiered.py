"""One chain planned by a strategy's name: on the device alone, or with storage tiers beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from planner_service.chain import BudgetTooSmall, Chain, Tier
from planner_service.contract import OFFLOAD
from planner_service.solvers import (
    REVERSIBLE,
    STRATEGIES,
    Cancellation,
    Solution,
    UnknownStrategy,
    solve,
)
from planner_service.solvers.bounds import knapsack_bound
from planner_service.solvers.offload.solve import OffloadSolution, solve_offload

AUTO = "auto"
MOST_STAGES_IN_AUTO = 3_000
"""Up to here a plan with tiers takes seconds; `offload` asks for one however long it takes."""

AnySolution = Solution | OffloadSolution


def strategies(tiers: Sequence[Tier], chain: Chain | None = None) -> tuple[str, ...]:
    """The strategies that have something to say beside these tiers, of `chain` if it is given."""
    reversing = (REVERSIBLE,) if chain is not None and chain.is_reversible else ()
    return (*STRATEGIES, *reversing, *([OFFLOAD] if tiers else ()))


def tiers_used(strategy: str, tiers: Sequence[Tier]) -> tuple[Tier, ...]:
    """Those of `tiers` that `strategy` may use: all or none."""
    return tuple(tiers) if strategy in {AUTO, OFFLOAD} else ()


def solve_beside(
    chain: Chain,
    budget_bytes: int,
    strategy: str,
    tiers: Sequence[Tier],
    cancellation: Cancellation | None = None,
) -> AnySolution:
    """The plan of `strategy` for `chain` with `tiers` beside the device, each with its own budget.

    `auto` moves states where that is faster, and gives a plan of the device alone where it is not, or
    where the chain is too long to find out in a few seconds.
    Raises BudgetTooSmall (of the device), UnknownStrategy, ChainTooLong and Cancelled.
    """
    known = (*STRATEGIES, REVERSIBLE, OFFLOAD)
    if strategy not in known:
        raise UnknownStrategy(strategy=strategy, known=known)
    if not tiers_used(strategy, tiers):
        return solve(chain, budget_bytes, strategy, cancellation=cancellation)
    if strategy == AUTO and chain.length > MOST_STAGES_IN_AUTO:
        alone = solve(chain, budget_bytes, AUTO, cancellation=cancellation)
        return replace(
            alone, reason=f"{alone.reason}; more than {MOST_STAGES_IN_AUTO} stages: tiers not tried"
        )
    offloaded = _offloaded(chain, budget_bytes, tiers, cancellation)
    moves = any(use.write_count for use in offloaded.verdict.tiers)
    if strategy == OFFLOAD or (moves and not chain.is_reversible):
        return offloaded
    return _alone(chain, budget_bytes, offloaded, cancellation) or offloaded


def _offloaded(
    chain: Chain, budget_bytes: int, tiers: Sequence[Tier], cancellation: Cancellation | None
) -> OffloadSolution:
    """The plan with tiers. What it proves is about schedules that undo nothing, and is left out elsewhere."""
    offloaded = solve_offload(chain, budget_bytes, tiers, cancellation=cancellation)
    if not chain.has_reversals:
        return offloaded
    return replace(offloaded, lower_bound=knapsack_bound(chain, budget_bytes), optimality="bounded")


def _alone(
    chain: Chain, budget_bytes: int, offloaded: OffloadSolution, cancellation: Cancellation | None
) -> Solution | None:
    """The plan of the device alone, if it is as fast; what is proven of `offloaded` holds for it too."""
    try:
        alone = solve(chain, budget_bytes, AUTO, cancellation=cancellation)
    except BudgetTooSmall:
        return None
    if alone.verdict.makespan > offloaded.verdict.makespan:
        return None
    proven = alone if chain.has_reversals else offloaded
    return replace(
        alone,
        lower_bound=min(proven.lower_bound, alone.verdict.makespan),
        optimality=proven.optimality,
        reason=f"no plan that moves states to tiers was found to be faster; {alone.reason}",
    )
