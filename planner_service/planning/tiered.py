"""One chain planned by a strategy's name: on the device alone, or with storage tiers beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from planner_service.chain import BudgetTooSmall, Chain, Tier
from planner_service.contract import OFFLOAD
from planner_service.solvers import STRATEGIES, Cancellation, Solution, UnknownStrategy, solve
from planner_service.solvers.offload import OffloadSolution, solve_offload

AUTO = "auto"
MOST_STAGES_IN_AUTO = 3_000
"""Up to here a plan with tiers takes seconds; `offload` asks for one however long it takes."""

AnySolution = Solution | OffloadSolution


def strategies(tiers: Sequence[Tier]) -> tuple[str, ...]:
    """The strategies that have something to say where there are these tiers."""
    return (*STRATEGIES, OFFLOAD) if tiers else STRATEGIES


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
    if strategy not in {*STRATEGIES, OFFLOAD}:
        raise UnknownStrategy(strategy=strategy, known=(*STRATEGIES, OFFLOAD))
    if not tiers_used(strategy, tiers):
        return solve(chain, budget_bytes, strategy, cancellation=cancellation)
    if strategy == AUTO and chain.length > MOST_STAGES_IN_AUTO:
        alone = solve(chain, budget_bytes, AUTO, cancellation=cancellation)
        return replace(
            alone, reason=f"{alone.reason}; more than {MOST_STAGES_IN_AUTO} stages: tiers not tried"
        )
    offloaded = solve_offload(chain, budget_bytes, tiers, cancellation=cancellation)
    if strategy == OFFLOAD or any(use.write_count for use in offloaded.verdict.tiers):
        return offloaded
    return _alone(chain, budget_bytes, offloaded, cancellation) or offloaded


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
    return replace(
        alone,
        lower_bound=min(offloaded.lower_bound, alone.verdict.makespan),
        optimality=offloaded.optimality,
        reason=f"no plan that moves states to tiers was found to be faster; {alone.reason}",
    )
