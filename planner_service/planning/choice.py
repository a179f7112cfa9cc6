"""The choice of the segment length: solve what could win, keep the cheapest plan that fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planner_service.chain import BudgetTooSmall, PlanningError, Tier
from planner_service.memory import Candidate
from planner_service.planning.least import has_leanest_plan
from planner_service.planning.tiered import AnySolution, solve_beside
from planner_service.solvers import Cancellation, ScheduleTooLong
from planner_service.solvers.bounds import knapsack_bound
from planner_service.solvers.offload.search import ChainTooLong

MANY_STAGES = 100
WORTHWHILE_RATIO = 1e-3
"""A chain of more than MANY_STAGES stages is solved only if it might be cheaper by this fraction."""

SEARCHED = frozenset({"auto", "optimal", "mixed"})
"""Strategies that search for decisions, which may be too many."""

Refusal = BudgetTooSmall | ChainTooLong | ScheduleTooLong
"""Of one candidate; another may still do."""


@dataclass(frozen=True)
class Choice:
    """The candidate that was chosen and its plan."""

    candidate: Candidate
    solution: AnySolution

    @property
    def exact_gradient(self) -> bool:
        """Whether the gradient is that of full BPTT: the strategy's, and nothing of it is dropped."""
        return self.solution.exact_gradient and self.candidate.gradient_sparsity is None


def choose(
    candidates: Sequence[Candidate],
    budget_bytes: int,
    strategy: str,
    cancellation: Cancellation | None,
    *,
    tiers: Sequence[Tier] = (),
) -> Choice:
    """The plan of least makespan over all candidates; ties go to the smaller peak.

    A candidate is passed over when a lower bound proves that it cannot win (long chains: not by
    WORTHWHILE_RATIO), and when it is too long for a plan with `tiers` or with so little memory. Raises
    BudgetTooSmall with the least budget over all candidates for which `strategy` has a plan, ChainTooLong
    or ScheduleTooLong where all are too long, and whatever else `solve_beside` refuses.
    """
    best: tuple[Candidate, AnySolution] | None = None
    refusals: list[tuple[Candidate, Refusal]] = []
    # Short chains are solved in no time, and what they cost spares the long ones.
    for candidate in sorted(candidates, key=lambda candidate: candidate.chain.length):
        if best is not None and not _could_win(candidate, budget_bytes, best[1]):
            continue
        try:
            solution = solve_beside(candidate.chain, budget_bytes, strategy, tiers, cancellation)
        except (BudgetTooSmall, ChainTooLong, ScheduleTooLong) as refusal:
            refusals.append((candidate, refusal))
            continue
        if best is None or _rank(solution) < _rank(best[1]):
            best = candidate, solution
    if best is None:
        raise _refusal_of_all(refusals, budget_bytes, strategy)
    return Choice(*best)


def _refusal_of_all(
    refusals: Sequence[tuple[Candidate, Refusal]], budget_bytes: int, strategy: str
) -> PlanningError:
    too_small = [
        (candidate, refusal) for candidate, refusal in refusals if isinstance(refusal, BudgetTooSmall)
    ]
    if not too_small:
        return refusals[0][1]
    named = [refusal.minimum_budget_bytes for _, refusal in too_small]
    if strategy in SEARCHED:
        # Of a chain that has no plan in its least bytes they are none to name, where another has one.
        named = [
            refusal.minimum_budget_bytes
            for candidate, refusal in too_small
            if has_leanest_plan(candidate.chain)
        ] or named
    return BudgetTooSmall(budget_bytes=budget_bytes, minimum_budget_bytes=min(named))


def _could_win(candidate: Candidate, budget_bytes: int, best: AnySolution) -> bool:
    saving = WORTHWHILE_RATIO if candidate.chain.length > MANY_STAGES else 0.0
    return knapsack_bound(candidate.chain, budget_bytes) <= best.verdict.makespan * (1 - saving)


def _rank(solution: AnySolution) -> tuple[float, int]:
    return solution.verdict.makespan, solution.verdict.peak_bytes
