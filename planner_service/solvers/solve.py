"""The way in: a chain and a budget to a policy that the simulator has replayed inside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from planner_service.chain import BudgetTooSmall, Chain, Stage, StageRun, expand, simulate
from planner_service.solvers.bounds import knapsack_bound
from planner_service.solvers.chen import draft_chen_recursive
from planner_service.solvers.draft import Draft
from planner_service.solvers.optimal import draft_mixed, draft_optimal
from planner_service.solvers.polling import polled
from planner_service.solvers.reversible import draft_reversible
from planner_service.solvers.sketch import Outline, frontier_sketch
from planner_service.solvers.slots import draft_hidden, draft_internal
from planner_service.solvers.solution import (
    ROUNDING,
    Cancellation,
    Optimality,
    Solution,
    UnknownStrategy,
)
from planner_service.solvers.truncated import solve_truncated
from planner_service.solvers.uniform import draft_every_k, draft_sqrt, draft_store_all


class UnsoundPlan(RuntimeError):
    """A solver's plan failed its replay: a defect of this package, never of the request."""


def _draft_auto(chain: Chain, budget_bytes: int, cancellation: Cancellation) -> Draft:
    """The optimum: no strategy that keeps the gradient exact is cheaper."""
    draft = draft_optimal(chain, budget_bytes, cancellation)
    stores_all = draft.policy.length == chain.length and len(draft.policy.nodes) == 1
    if stores_all:
        return replace(draft, strategy="store_all")
    return replace(draft, reason=f"the whole tape does not fit; {draft.reason}")


DRAFTS: dict[str, Callable[[Chain, int, Cancellation], Draft]] = {
    "auto": _draft_auto,
    "optimal": draft_optimal,
    "store_all": draft_store_all,
    "every_k": draft_every_k,
    "sqrt": draft_sqrt,
    "chen_recursive": draft_chen_recursive,
    "hidden": draft_hidden,
    "internal": draft_internal,
    "mixed": draft_mixed,
}
"""Strategies that keep the gradient exact."""

TRUNCATED = "truncated"
"""The strategy that cuts the gradient."""

STRATEGIES = (*DRAFTS, TRUNCATED)
"""Every strategy of `solve` that has something to say of any chain, by name."""

REVERSIBLE = "reversible"
"""The strategy of chains whose stages can be undone; `auto` tries it on them."""


def solve(
    chain: Chain,
    budget_bytes: int,
    strategy: str = "auto",
    *,
    cancellation: Cancellation | None = None,
    most_archived: int | None = None,
) -> Solution:
    """A policy of `chain` whose peak stays within `budget_bytes`, the cheapest that `strategy` has.

    most_archived: how many stages may be archived at once; None sets no limit but the bytes.
    Raises BudgetTooSmall (with the least budget of that strategy), UnknownStrategy, NotReversible and,
    when another thread cancels, Cancelled.
    """
    cancellation = cancellation or Cancellation()
    if strategy == TRUNCATED:
        return solve_truncated(chain, budget_bytes, cancellation)
    if strategy == REVERSIBLE:
        draft = draft_reversible(chain, budget_bytes, cancellation, most_archived=most_archived)
        return _judged(chain, budget_bytes, draft, cancellation)
    if strategy not in DRAFTS:
        raise UnknownStrategy(strategy=strategy, known=(*STRATEGIES, REVERSIBLE))
    if strategy == "auto" and chain.is_reversible:
        return _cheaper_of_both(chain, budget_bytes, cancellation, most_archived)
    return _judged(chain, budget_bytes, DRAFTS[strategy](chain, budget_bytes, cancellation), cancellation)


def _cheaper_of_both(
    chain: Chain, budget_bytes: int, cancellation: Cancellation, most_archived: int | None
) -> Solution:
    """The better of checkpointing and reversal on a chain that allows both; ties go to the smaller peak.

    Where a policy wins that might have undone stages and does not, it is one of checkpoints, and called so.
    """
    solutions: list[Solution] = []
    refusals: list[BudgetTooSmall] = []
    for draft_of in (_draft_auto, partial(draft_reversible, most_archived=most_archived)):
        try:
            draft = draft_of(chain, budget_bytes, cancellation)
        except BudgetTooSmall as refusal:
            refusals.append(refusal.with_traceback(None))  # a traceback holds this frame
            continue
        solutions.append(_judged(chain, budget_bytes, draft, cancellation))
    if not solutions:
        raise min(refusals, key=lambda refusal: refusal.minimum_budget_bytes)
    best = min(solutions, key=lambda solution: (solution.verdict.makespan, solution.verdict.peak_bytes))
    is_of_checkpoints = best.strategy == REVERSIBLE and not best.verdict.undo_count
    return replace(best, strategy="optimal") if is_of_checkpoints else best


def _judged(chain: Chain, budget_bytes: int, draft: Draft, cancellation: Cancellation) -> Solution:
    """The draft as a solution, after its replay. Raises Cancelled."""
    verdict = simulate(chain, polled(expand(draft.policy), cancellation), budget_bytes)
    if not verdict.legal:
        raise UnsoundPlan(f"{draft.strategy}: {verdict.illegal}")
    bound = knapsack_bound(chain, budget_bytes)
    if bound > verdict.makespan * (1 + ROUNDING):
        raise UnsoundPlan(f"{draft.strategy}: makespan {verdict.makespan} is below the bound {bound}")
    met = verdict.makespan <= bound * (1 + ROUNDING)
    # What a solver proves of schedules that undo nothing is not proven of those that do.
    proven = "bounded" if chain.has_reversals else draft.optimality
    optimality: Optimality = "optimal" if met else proven
    return Solution(
        strategy=draft.strategy,
        policy=draft.policy,
        verdict=verdict,
        lower_bound=verdict.makespan if optimality == "optimal" else bound,
        optimality=optimality,
        exact_gradient=draft.exact_gradient,
        reason=draft.reason,
        exact_search=draft.optimality != "bounded",
    )


def warm_up() -> None:
    """Compile or load the kernels of every plan on the device alone, so that the next solve runs at full
    speed: those of short chains, and those of long ones.
    """
    stage = Stage(forward_cost=1, taped_forward_cost=1, backward_cost=1, state_bytes=1, tape_bytes=2)
    for length, budget_bytes in ((4, 8), (20_000, 60)):
        chain = Chain((StageRun(length, stage),), input_bytes=1)
        solve(chain, budget_bytes, "optimal")
        outline = Outline.of(chain)
        assert outline is not None  # noqa: S101 - equal stages
        frontier_sketch([outline])
