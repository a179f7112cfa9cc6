"""A frontier from single plans: budget by budget, where the next plan tells most.

Between two neighbouring points nothing is known but that makespans lie between theirs. The gap that
hides most is split first: makespans count as speed (the fastest makespan over this one), so that plans
hundreds of times too slow do not draw all attention; bytes count by the cube root of their distance
from the least budget, for little memory changes most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Generic

from planner_service.solvers.frontier_points import Point, non_dominated

PLANS_PER_POINT = 2
"""Plans that are made for each point asked for: some find a makespan that is known already."""


def sampled(
    price: Callable[[int], Point], *, least_bytes: int, most_bytes: int, most_points: int
) -> list[Point]:
    """Non-dominated points from `least_bytes` to `most_bytes`, at most `most_points` (2 or more).

    `price(budget_bytes)` plans one budget; the point it returns may name a smaller one that is known to
    give the same makespan. Every budget is priced once at most, about twice `most_points` in all.
    """
    sampling = _Sampling(price, least_bytes, most_bytes)
    plans = 2
    while sampling.gaps and plans < PLANS_PER_POINT * most_points:
        if len(sampling.makespans) >= most_points:
            break
        sampling.split_widest()
        plans += 1
    return non_dominated(sampling.points)


@dataclass(frozen=True, order=True)
class _Gap:
    """Budgets between two points; the widest gap sorts first."""

    negative_width: float
    low_bytes: int
    low_makespan: float
    high_bytes: int
    high_makespan: float


@dataclass
class _Sampling(Generic[Point]):
    """The points found so far and the gaps between them."""

    price: Callable[[int], Point]
    least_bytes: int
    most_bytes: int
    points: list[Point] = field(default_factory=list)
    makespans: set[float] = field(default_factory=set)
    gaps: list[_Gap] = field(default_factory=list)
    fastest: float = 0.0

    def __post_init__(self) -> None:
        last = self._add(self.most_bytes)
        self.fastest = last.makespan
        if self.least_bytes < self.most_bytes:
            first = self._add(self.least_bytes)
            self._open(self.least_bytes, first.makespan, last.budget_bytes, last.makespan)

    def split_widest(self) -> None:
        """Price a budget inside the widest gap."""
        gap = heappop(self.gaps)
        budget_bytes = self._between(gap.low_bytes, gap.high_bytes)
        found = self._add(budget_bytes)
        # What a smaller budget than asked for achieves is known up to the budget that was asked for.
        self._open(gap.low_bytes, gap.low_makespan, found.budget_bytes, found.makespan)
        self._open(budget_bytes, found.makespan, gap.high_bytes, gap.high_makespan)

    def _add(self, budget_bytes: int) -> Point:
        point = self.price(budget_bytes)
        self.points.append(point)
        self.makespans.add(point.makespan)
        return point

    def _open(self, low_bytes: int, low_makespan: float, high_bytes: int, high_makespan: float) -> None:
        """Note a gap, unless there is nothing to find in it."""
        if high_bytes - low_bytes < 2 or low_makespan <= high_makespan:
            return
        drop = self._speed(high_makespan) - self._speed(low_makespan)
        width = drop * (self._position(high_bytes) - self._position(low_bytes))
        heappush(self.gaps, _Gap(-width, low_bytes, low_makespan, high_bytes, high_makespan))

    def _speed(self, makespan: float) -> float:
        return self.fastest / makespan if makespan else 1.0

    def _position(self, budget_bytes: int) -> float:
        """Where a budget lies: 0 for the least one, 1 for the greatest."""
        share = (budget_bytes - self.least_bytes) / (self.most_bytes - self.least_bytes)
        return float(share ** (1 / 3))

    def _between(self, low_bytes: int, high_bytes: int) -> int:
        """The budget halfway between two that are at least 2 bytes apart."""
        halfway = (self._position(low_bytes) + self._position(high_bytes)) / 2
        budget_bytes = self.least_bytes + round((self.most_bytes - self.least_bytes) * halfway**3)
        return min(max(budget_bytes, low_bytes + 1), high_bytes - 1)
