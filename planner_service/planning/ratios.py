"""Ratios that are reported, and comparisons of makespans."""

from __future__ import annotations

import sys

from planner_service.solvers.solution import ROUNDING


def excess_ratio(makespan: float, reference: float) -> float:
    """How far `makespan` lies above `reference`, as a fraction of it; 0 when both are 0, and the largest
    number where it would be infinite, which JSON does not know.
    """
    if not reference:
        return sys.float_info.max if makespan else 0.0
    return min(makespan / reference - 1, sys.float_info.max)


def is_within(makespan: float, limit: float) -> bool:
    """Whether a plan takes at most `limit`. Sums of the same costs in another order are no slower, nor is a
    limit that was computed from a reported ratio below what the ratio is of.
    """
    return makespan <= limit * (1 + ROUNDING)
