"""The use case `frontier`: what each budget buys, from the least one to that of full BPTT."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from planner_service import solvers
from planner_service.chain import BudgetTooSmall
from planner_service.contract import FrontierPoint, FrontierReply, FrontierRequest
from planner_service.memory import Candidate, Profile
from planner_service.planning.candidates import candidates_of
from planner_service.planning.choice import Choice, choose
from planner_service.planning.full_bptt import full_bptt
from planner_service.planning.least import least_budget_bytes
from planner_service.planning.ratios import excess_ratio
from planner_service.planning.search import Found, least_budget
from planner_service.solvers import Cancellation

MEBIBYTE = 2**20
MOST_POINTS = 2000
"""Points that a table is asked for, before those of all candidates are thinned."""
SHORT_CHAIN = 300
"""Up to so many stages one table holds every budget; longer chains are planned budget by budget."""


class Pair(NamedTuple):
    """A plan's two prices."""

    peak_bytes: int
    """A budget under which it runs."""
    makespan: float
    segment_steps: int | None

    @classmethod
    def of(cls, choice: Choice) -> Pair:
        """The prices of a chosen plan."""
        verdict = choice.solution.verdict
        return cls(verdict.peak_bytes, verdict.makespan, choice.candidate.segment_steps)


def frontier(
    request: FrontierRequest, known_profiles: Sequence[Profile], cancellation: Cancellation | None = None
) -> FrontierReply:
    """The frontiers of all segment lengths as one, and the two questions about it.

    Raises BudgetTooSmall when `at_most_bytes` is below the least budget, and what `choose` raises.
    """
    candidates = candidates_of(request, known_profiles, reserved_bytes=request.memory.reserved_bytes)
    view = _View(candidates, cancellation)
    every_pair = view.pairs(request.points)
    pairs = thinned(every_pair, request.points)
    found = view.within_overhead(request.at_most_overhead_ratio, every_pair)
    points = view.points(pairs)
    return FrontierReply(
        unit=candidates[0].cost_unit,
        points=points,
        knee=points[knee_index(pairs)],
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

    def pair(self, budget_bytes: int) -> Pair:
        """The prices of the best plan within `budget_bytes`."""
        return Pair.of(choose(self._candidates, budget_bytes, "auto", self._cancellation))

    def pairs(self, most_points: int) -> list[Pair]:
        """What no plan beats: of the best plan at `most_points` budgets, and of every short candidate
        at all its budgets.
        """
        found = [self.pair(budget) for budget in spread(self.minimum_bytes, self.full_bytes, most_points)]
        for candidate in self._candidates:
            if candidate.chain.length > SHORT_CHAIN:
                continue
            points = solvers.frontier(
                candidate.chain, most_points=MOST_POINTS, cancellation=self._cancellation
            )
            found += [Pair(*point, candidate.segment_steps) for point in points]
        return non_dominated(found)

    def within_overhead(self, ratio: float | None, pairs: Sequence[Pair]) -> Found[Pair] | None:
        """The leanest plan found whose makespan is at most (1 + ratio) times that of full BPTT."""
        if ratio is None:
            return None
        limit = (1 + ratio) * self.full_makespan

        def attempt(budget_bytes: int) -> Pair | None:
            pair = self.pair(budget_bytes)
            return pair if pair.makespan <= limit else None

        enough = [pair.peak_bytes for pair in pairs if pair.makespan <= limit]
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
            (left.makespan - right.makespan) / (right.peak_bytes - left.peak_bytes) * MEBIBYTE
            for left, right in pairwise(pairs)
        ]
        return [
            FrontierPoint(
                budget_bytes=pair.peak_bytes,
                makespan=pair.makespan,
                overhead_ratio=excess_ratio(pair.makespan, self.full_makespan),
                segment_steps=pair.segment_steps,
                saving_per_mebibyte=slope,
            )
            for pair, slope in zip(pairs, [*slopes, None], strict=True)
        ]


def spread(low_bytes: int, high_bytes: int, count: int) -> list[int]:
    """`count` budgets from `low_bytes` to `high_bytes`, ever sparser: little memory changes most."""
    span = max(0, high_bytes - low_bytes)
    shares = [(index / (count - 1)) ** 3 for index in range(count)]
    return sorted({low_bytes + round(span * share) for share in shares})


def non_dominated(pairs: Sequence[Pair]) -> list[Pair]:
    """Those that no other pair beats or equals in both prices, bytes ascending."""
    kept: list[Pair] = []
    for pair in sorted(pairs):
        if not kept or pair.makespan < kept[-1].makespan:
            kept.append(pair)
    return kept


def thinned(pairs: Sequence[Pair], most_points: int) -> list[Pair]:
    """At most `most_points` of them, evenly picked, both ends included."""
    if len(pairs) <= most_points:
        return list(pairs)
    last = len(pairs) - 1
    return [pairs[index * last // (most_points - 1)] for index in range(most_points)]


def knee_index(pairs: Sequence[Pair]) -> int:
    """The pair farthest below the straight line from the first to the last, both axes scaled to 1.

    Satopaa, Albrecht, Irwin, Raghavan (2011), "Finding a 'kneedle' in a haystack", on the given points.
    """
    first, last = pairs[0], pairs[-1]
    span_bytes = last.peak_bytes - first.peak_bytes or 1
    span_cost = first.makespan - last.makespan or 1.0

    def below(pair: Pair) -> float:
        across = (pair.peak_bytes - first.peak_bytes) / span_bytes
        height = (pair.makespan - last.makespan) / span_cost
        return 1 - across - height

    return max(range(len(pairs)), key=lambda index: below(pairs[index]))
