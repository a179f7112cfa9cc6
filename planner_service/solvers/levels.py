"""Memory levels: the byte values at which a table holds its costs.

A table is exact in bytes when its levels are closed under every subtraction that a schedule can make
(free bytes after storing a state or a tape). Where that closure is too large, evenly spaced levels
below the full budget stand in: storing then rounds the free bytes down, which is always safe.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np

from planner_service.solvers.needs import REVERSE_NEED, Bytes, ChainNeeds

SPREAD = 8
"""Sums are enumerated while there are at most so many times more of them than levels allowed."""


@dataclass(frozen=True)
class Levels:
    """Ascending free bytes; `exact` when no subtraction needs rounding."""

    free_bytes: Bytes
    exact: bool

    def below(self, free_bytes: int) -> int:
        """Highest level that `free_bytes` covers; -1 for none."""
        return int(np.searchsorted(self.free_bytes, free_bytes, side="right")) - 1

    def floor(self, sizes_bytes: Bytes) -> Bytes:
        """For each size and level the level that remains, rounded down; -1 for none.

        Shape (sizes, levels).
        """
        remaining = self.free_bytes[None, :] - sizes_bytes[:, None]
        return np.searchsorted(self.free_bytes, remaining, side="right") - 1


def choose_levels(needs: ChainNeeds, free_bytes: int, most_levels: int) -> Levels:
    """At most `most_levels` levels up to `free_bytes`, down to where no single stage fits."""
    least_bytes = int(needs.table[:, REVERSE_NEED].min())
    closure = _closure(needs, free_bytes, least_bytes, most_levels)
    if closure is not None:
        return Levels(closure, exact=True)
    # Anchored at the top: the whole budget itself must be a level.
    below = np.arange(most_levels, dtype=np.float64) / (most_levels - 1) * (free_bytes - least_bytes)
    steps = np.minimum(np.ceil(below).astype(np.int64), free_bytes - least_bytes)
    return Levels(np.unique(free_bytes - steps), exact=False)


def _closure(needs: ChainNeeds, free_bytes: int, least_bytes: int, most_levels: int) -> Bytes | None:
    """Every value `free_bytes` - (states and tapes that may be stored at once), or None if too many."""
    counts: dict[int, int] = {}
    for run in needs.runs:
        for size in {run.needs.state_bytes, run.needs.tape_bytes} - {0}:
            counts[size] = counts.get(size, 0) + run.count
    span = free_bytes - least_bytes
    values = np.array([free_bytes], dtype=np.int64)
    for size in sorted(counts, reverse=True):
        times = min(counts[size], span // size)
        if len(values) * (times + 1) > SPREAD * most_levels:
            return _multiples(gcd(*counts), free_bytes, span, most_levels)
        spread = values[:, None] - size * np.arange(times + 1, dtype=np.int64)[None, :]
        values = np.unique(spread[spread >= least_bytes])
        if len(values) > most_levels:
            return None
    return values


def _multiples(unit_bytes: int, free_bytes: int, span_bytes: int, most_levels: int) -> Bytes | None:
    """Every multiple of the sizes' common divisor below the budget, or None if too many."""
    count = span_bytes // unit_bytes + 1
    if count > most_levels:
        return None
    return free_bytes - unit_bytes * np.arange(count - 1, -1, -1, dtype=np.int64)
