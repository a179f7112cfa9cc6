"""Small clusters and curves for the tests of placement."""

from __future__ import annotations

from typing import Any

import numpy as np

from planner_service.placement import Curve, Hole

GIB = 2**30


def hole(name: str = "h", gib: float = 80, **fields: Any) -> Hole:
    """A hole of that nominal memory, without a driver's reserve or a context unless given."""
    given = {"node": name, "driver_reserve_ratio": 0.0, "context_bytes": 0, **fields}
    return Hole(name=name, memory_total_bytes=round(gib * GIB), **given)


def curve(*points: tuple[float, float], full: float = 100.0) -> Curve:
    """The curve of (GiB, makespan) pairs."""
    budgets, makespans = zip(*points, strict=True)
    return Curve.of(
        np.array([round(gib * GIB) for gib in budgets], dtype=np.int64),
        np.array(makespans, dtype=float),
        exactness="bound",
        store_all_makespan=full,
    )
