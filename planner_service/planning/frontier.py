"""The use case `frontier`: what each budget buys, from the least one to that of full BPTT."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from planner_service.chain import BudgetTooSmall
from planner_service.contract import FrontierPoint, FrontierReply, FrontierRequest
from planner_service.memory import Candidate, Profile
from planner_service.planning.candidates import candidates_of
from planner_service.planning.choice import Choice, choose
from planner_service.planning.full_bptt import full_bptt
from planner_service.planning.least import least_budget_bytes
from planner_service.planning.ratios import excess_ratio, is_within
from planner_service.planning.search import Found, least_budget
from planner_service.solvers import Cancellation, affordable_points, knee, sampled, sufficient_bytes

MEBIBYTE = 2**20


class Pair(NamedTuple):
    """A plan's two prices."""

    budget_bytes: int
    """A budget under which it runs."""
    makespan: float
    segment_steps: int | None

    @classmethod
    def of(cls, choice: Choice, budget_bytes: int) -> Pair:
        """The prices of the plan chosen for `budget_bytes`."""
        enough_bytes = max(1, sufficient_bytes(choice.solution, budget_bytes))
        return cls(enough_bytes, choice.solution.verdict.makespan, choice.candidate.segment_steps)


def frontier(
    request: FrontierRequest, known_profiles: Sequence[Profile], cancellation: Cancellation | None = None
) -> FrontierReply:
    """The frontiers of all segment lengths as one, and the two questions about it.

    Raises BudgetTooSmall when `at_most_bytes` is below the least budget, and what `choose` raises.
    """
    candidates = candidates_of(request, known_profiles, reserved_bytes=request.memory.reserved_bytes)
    view = _View(candidates, cancellation)
    pairs = view.pairs(request.points)
    found = view.within_overhead(request.at_most_overhead_ratio, pairs)
    points = view.points(pairs)
    return FrontierReply(
        unit=candidates[0].cost_unit,
        exact_gradient=candidates[0].gradient_sparsity is None,
        points=points,
        knee=points[pairs.index(knee(pairs))],
        minimum_budget_bytes=view.minimum_bytes,
        store_all_makespan=view.full_makespan,
        store_all_peak_bytes=view.full_bytes,
        least_bytes=None if found is None else view.points([found.plan])[0],
        not_enough_bytes=None if found is None else found.not_enough_bytes,
        least_makespan=view.least_makespan(request.at_most_bytes),
    )


class _View:
    """All plans of some candidates, by budget."""

    def __init__(self, candidates: Sequence[Candidate], cancellation: Cancellation | None) -> None:
        self._candidates = candidates
        self._cancellation = cancellation
        full = full_bptt(candidates)
        self.full_makespan, self.full_bytes = full.makespan, full.peak_bytes
        self.minimum_bytes = least_budget_bytes(candidates, cancellation)
        self._known: dict[int, Pair] = {}

    def pair(self, budget_bytes: int) -> Pair:
        """The prices of the best plan within `budget_bytes`. Raises BudgetTooSmall."""
        if budget_bytes not in self._known:
            choice = choose(self._candidates, budget_bytes, "auto", self._cancellation)
            self._known[budget_bytes] = Pair.of(choice, budget_bytes)
        return self._known[budget_bytes]

    def pairs(self, most_points: int) -> list[Pair]:
        """What no plan beats, at `most_points` budgets at most: fewer where a plan takes seconds."""
        affordable = min(affordable_points(candidate.chain) for candidate in self._candidates)
        return sampled(
            self.pair,
            least_bytes=self.minimum_bytes,
            most_bytes=self.full_bytes,
            most_points=min(most_points, affordable),
        )

    def within_overhead(self, ratio: float | None, pairs: Sequence[Pair]) -> Found[Pair] | None:
        """The leanest plan found whose makespan is at most (1 + ratio) times that of full BPTT."""
        if ratio is None:
            return None
        limit = (1 + ratio) * self.full_makespan

        def attempt(budget_bytes: int) -> Pair | None:
            pair = self.pair(budget_bytes)
            return pair if is_within(pair.makespan, limit) else None

        enough = [pair.budget_bytes for pair in pairs if is_within(pair.makespan, limit)]
        high = min(enough, default=self.full_bytes)
        # A plan for `high` may be passed over for one that is cheaper to find, by WORTHWHILE_RATIO.
        return least_budget(attempt, low_bytes=self.minimum_bytes, high_bytes=high) or least_budget(
            attempt, low_bytes=self.minimum_bytes, high_bytes=self.full_bytes
        )

    def least_makespan(self, budget_bytes: int | None) -> FrontierPoint | None:
        """The quickest plan within `budget_bytes`. Raises BudgetTooSmall, about `at_most_bytes`."""
        if budget_bytes is None:
            return None
        try:
            return self.points([self.pair(budget_bytes)])[0]
        except BudgetTooSmall as refusal:
            refusal.field = "at_most_bytes"
            raise

    def points(self, pairs: Sequence[Pair]) -> list[FrontierPoint]:
        """The pairs as they travel, each with the slope to the next."""
        slopes = [
            (left.makespan - right.makespan) / (right.budget_bytes - left.budget_bytes) * MEBIBYTE
            for left, right in pairwise(pairs)
        ]
        return [
            FrontierPoint(
                budget_bytes=pair.budget_bytes,
                makespan=pair.makespan,
                overhead_ratio=excess_ratio(pair.makespan, self.full_makespan),
                segment_steps=pair.segment_steps,
                saving_per_mebibyte=slope,
            )
            for pair, slope in zip(pairs, [*slopes, None], strict=True)
        ]
