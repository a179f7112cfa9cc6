"""The choice of the segment length: solve every candidate, keep the cheapest plan that fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planner_service.chain import BudgetTooSmall
from planner_service.memory import Candidate
from planner_service.solvers import Cancellation, Solution, minimum_budget_bytes, solve


@dataclass(frozen=True)
class Choice:
    """The candidate that was chosen and its plan."""

    candidate: Candidate
    solution: Solution
    minimum_budget_bytes: int
    """The least budget that could be planned, over all candidates."""


def choose(
    candidates: Sequence[Candidate], budget_bytes: int, strategy: str, cancellation: Cancellation | None
) -> Choice:
    """The plan of least makespan over all candidates; ties go to the smaller peak.

    Raises BudgetTooSmall with the least budget over all candidates for which `strategy` has a plan,
    and whatever else `solve` refuses.
    """
    best: tuple[Candidate, Solution] | None = None
    refusals: list[BudgetTooSmall] = []
    # No plan is cheaper than taping everything once, so the promising ones go first.
    for candidate in sorted(candidates, key=lambda candidate: candidate.chain.store_all_makespan):
        if best and candidate.chain.store_all_makespan > best[1].verdict.makespan:
            break
        try:
            solution = solve(candidate.chain, budget_bytes, strategy, cancellation=cancellation)
        except BudgetTooSmall as refusal:
            refusals.append(refusal)
            continue
        if best is None or _rank(solution) < _rank(best[1]):
            best = candidate, solution
    if best is None:
        least = min(refusal.minimum_budget_bytes for refusal in refusals)
        raise BudgetTooSmall(budget_bytes=budget_bytes, minimum_budget_bytes=least)
    least = min(minimum_budget_bytes(candidate.chain) for candidate in candidates)
    return Choice(*best, minimum_budget_bytes=least)


def _rank(solution: Solution) -> tuple[float, int]:
    return solution.verdict.makespan, solution.verdict.peak_bytes
