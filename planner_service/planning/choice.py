"""The choice of the segment length: solve what could win, keep the cheapest plan that fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from planner_service.chain import BudgetTooSmall, PlanningError, Tier
from planner_service.memory import Candidate
from planner_service.planning.full_bptt import full_bptt
from planner_service.planning.least import has_leanest_plan
from planner_service.planning.ratios import is_within
from planner_service.planning.tiered import AUTO, AnySolution, solve_beside
from planner_service.solvers import TRUNCATED, Cancellation, ScheduleTooLong
from planner_service.solvers.bounds import knapsack_bound
from planner_service.solvers.offload.search import ChainTooLong
from planner_service.solvers.optimal import MOST_REPLAYED_STAGES

MANY_STAGES = 100
WORTHWHILE_RATIO = 1e-3
"""A chain of more than MANY_STAGES stages is solved only if it might be cheaper by this fraction."""

SEARCHED = frozenset({"auto", "optimal", "mixed"})
"""Strategies that search for decisions, which may be too many."""

HIDDEN = "hidden"

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

    @property
    def reach_steps(self) -> int:
        """Steps through which the gradient goes before it is cut: all of them but with `truncated`."""
        segment_steps = self.candidate.segment_steps or 1
        not_there = segment_steps - (self.candidate.last_steps or segment_steps)
        whole = self.candidate.chain.length * segment_steps - not_there
        return min(self.solution.policy.length * segment_steps, whole)


def choose(
    candidates: Sequence[Candidate],
    budget_bytes: int,
    strategy: str,
    cancellation: Cancellation | None,
    *,
    tiers: Sequence[Tier] = (),
) -> Choice:
    """The plan of least makespan over all candidates; ties go to the one that cuts the gradient last, if
    it is cut, then to the smaller peak.

    A candidate is passed over when a lower bound proves that it cannot win (long chains that take a search:
    not by WORTHWHILE_RATIO), and when it is too long for a plan with `tiers` or with so little memory. Where
    no candidate has a plan by search, `auto` stores states by their closed form.

    Raises BudgetTooSmall with the least budget over all candidates for which `strategy` has a plan,
    ChainTooLong or ScheduleTooLong where all are too long, and whatever else `solve_beside` refuses.
    """
    best: Choice | None = None
    refusals: list[tuple[Candidate, Refusal]] = []
    # Short chains are solved in no time, and what they cost spares the long ones.
    for candidate in sorted(candidates, key=lambda candidate: candidate.chain.length):
        if best is not None and not _could_win(candidate, budget_bytes, strategy, best.solution):
            continue
        try:
            solution = solve_beside(candidate.chain, budget_bytes, strategy, tiers, cancellation)
        except (BudgetTooSmall, ChainTooLong, ScheduleTooLong) as refusal:
            refusals.append((candidate, refusal))
            continue
        found = Choice(candidate, solution)
        if best is None or _is_better(found, best):
            best = found
    if best is None and strategy == AUTO:
        best = _without_search(refusals, budget_bytes, cancellation)
    if best is None:
        raise _refusal_of_all(refusals, budget_bytes, strategy)
    return best


def _without_search(
    refusals: Sequence[tuple[Candidate, Refusal]], budget_bytes: int, cancellation: Cancellation | None
) -> Choice | None:
    """Hidden states, of which a closed form tells where to store them, in the shortest of the chains that
    took too many decisions; None where those are too long to replay as well, or have no such plan.
    """
    for candidate, refusal in refusals:
        if isinstance(refusal, ScheduleTooLong) and candidate.chain.length <= MOST_REPLAYED_STAGES:
            try:
                solution = solve_beside(candidate.chain, budget_bytes, HIDDEN, (), cancellation)
            except BudgetTooSmall:
                continue
            reason = f"too many stages in so little memory to search for decisions: {solution.reason}"
            return Choice(candidate, replace(solution, reason=reason))
    return None


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


def _could_win(candidate: Candidate, budget_bytes: int, strategy: str, best: AnySolution) -> bool:
    chain, known = candidate.chain, best.verdict.makespan
    if strategy == TRUNCATED:
        return is_within(chain.store_all_makespan, known)
    bound = knapsack_bound(chain, budget_bytes)
    if chain.length <= MANY_STAGES:
        return bound <= known
    if full_bptt([candidate]).peak_bytes <= budget_bytes:  # there is nothing to search for
        return bound < known
    return bound <= known * (1 - WORTHWHILE_RATIO)


def _is_better(one: Choice, other: Choice) -> bool:
    ours, theirs = one.solution.verdict, other.solution.verdict
    if one.reach_steps != other.reach_steps and is_within(ours.makespan, theirs.makespan):
        return one.reach_steps > other.reach_steps or not is_within(theirs.makespan, ours.makespan)
    return (ours.makespan, ours.peak_bytes) < (theirs.makespan, theirs.peak_bytes)
