"""Ratios that are reported, and comparisons of makespans."""

from __future__ import annotations

from planner_service.solvers.solution import ROUNDING


def excess_ratio(makespan: float, reference: float) -> float:
    """How far `makespan` lies above `reference`, as a fraction of it; 0 when both are 0."""
    return makespan / reference - 1 if reference else 0.0


def is_within(makespan: float, limit: float) -> bool:
    """Whether a plan takes at most `limit`. Sums of the same costs in another order are no slower, nor is a
    limit that was computed from a reported ratio below what the ratio is of.
    """
    return makespan <= limit * (1 + ROUNDING)
