"""Points of a frontier: which of them no other beats, which to show, and where the bend is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from planner_service.solvers.solution import ROUNDING


class Priced(Protocol):
    """What a plan costs in bytes and in time."""

    @property
    def budget_bytes(self) -> int: ...

    @property
    def makespan(self) -> float: ...


Point = TypeVar("Point", bound=Priced)


class FrontierPoint(NamedTuple):
    """The least budget known for a makespan."""

    budget_bytes: int
    makespan: float
    """In the chain's cost unit."""


def non_dominated(points: Iterable[Point]) -> list[Point]:
    """Those that no other point beats or equals (rounding aside) in both prices, bytes ascending."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda point: (point.budget_bytes, point.makespan)):
        if not kept or point.makespan < kept[-1].makespan * (1 - ROUNDING):
            kept.append(point)
    return kept


def thinned(points: Sequence[Point], most_points: int) -> list[Point]:
    """At most `most_points` (2 or more) of them, evenly picked, both ends included."""
    if len(points) <= most_points:
        return list(points)
    last = len(points) - 1
    return [points[index * last // (most_points - 1)] for index in range(most_points)]


def knee(points: Sequence[Point]) -> Point:
    """The point farthest below the straight line from the first to the last, both axes scaled to 1.

    Satopaa, Albrecht, Irwin, Raghavan (2011), "Finding a 'kneedle' in a haystack", on the given points.
    """
    first, last = points[0], points[-1]
    span_bytes = last.budget_bytes - first.budget_bytes or 1
    span_cost = first.makespan - last.makespan or 1.0

    def below(point: Point) -> float:
        across = (point.budget_bytes - first.budget_bytes) / span_bytes
        height = (point.makespan - last.makespan) / span_cost
        return 1 - across - height

    return max(points, key=below)
