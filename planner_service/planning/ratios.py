"""Ratios that are reported."""

from __future__ import annotations


def excess_ratio(makespan: float, reference: float) -> float:
    """How far `makespan` lies above `reference`, as a fraction of it; 0 when both are 0."""
    return makespan / reference - 1 if reference else 0.0
