"""Levels of a tier: the free bytes that its tables distinguish."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from planner_service.solvers.needs import Bytes

MOST_TIER_LEVELS = 2_000


class TierLevels(NamedTuple):
    """One tier's free bytes as table columns; `exact` when no subtraction needs rounding."""

    floor: Bytes
    """Shape (L, levels): the level that is left when a state is written, -1 for none."""
    exact: bool


def unlimited_levels(start_bytes: Bytes) -> TierLevels:
    """A tier that never fills: one level."""
    return TierLevels(np.zeros((len(start_bytes), 1), dtype=np.int64), exact=True)


def tier_levels(start_bytes: Bytes, budget_bytes: int, most_levels: int) -> TierLevels:
    """At most `most_levels` levels of a tier with `budget_bytes`.

    start_bytes: per stage the state that it reads, shape (L,); the first one is never written.
    """
    sizes: list[int] = start_bytes[1:].tolist()
    if sum(sizes) <= budget_bytes:
        return unlimited_levels(start_bytes)
    values = _closure(sizes, budget_bytes, most_levels)
    exact = values is not None
    if values is None:
        # Anchored at the top, and rounded down: a tier may look fuller than it is, never emptier.
        below = np.arange(most_levels, dtype=np.float64) / (most_levels - 1) * budget_bytes
        values = np.unique(budget_bytes - np.minimum(np.ceil(below).astype(np.int64), budget_bytes))
    remaining = values[None, :] - start_bytes[:, None]
    return TierLevels(np.searchsorted(values, remaining, side="right") - 1, exact)


def _closure(sizes: Sequence[int], budget_bytes: int, most_levels: int) -> Bytes | None:
    """Every value `budget_bytes` - (states that may be written at once), or None if too many."""
    values = np.array([budget_bytes], dtype=np.int64)
    for size, count in sorted(Counter(sizes).items(), reverse=True):
        if size == 0:
            continue
        times = min(count, budget_bytes // size)
        if len(values) + times > most_levels:
            return None
        spread = values[:, None] - size * np.arange(times + 1, dtype=np.int64)[None, :]
        values = np.unique(spread[spread >= 0])
        if len(values) > most_levels:
            return None
    return values
