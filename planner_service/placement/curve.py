"""What each budget buys, as arrays: one curve answers all holes."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.int64]
Costs = NDArray[np.float64]

LARGEST_RATIO = sys.float_info.max
"""Stands for what would be infinite, which JSON does not know."""

Exactness = Literal["bound", "planned"]
"""bound: the plan of a budget is at most that slow; planned: that is the plan's own makespan."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Budgets ascending, makespans descending: a budget is answered by the last point that it covers.

    The first point is the least budget that can be planned; with one byte less nothing fits.
    """

    budget_bytes: Bytes
    makespan: Costs
    """In the unit of the chain's costs."""
    exactness: Exactness
    store_all_makespan: float
    """Full BPTT without a budget."""

    @classmethod
    def of(
        cls, budget_bytes: Bytes, makespan: Costs, *, exactness: Exactness, store_all_makespan: float
    ) -> Curve:
        """The curve of these points in any order; what another point beats is left out.

        Stages without bytes need none, but no budget is below one byte.
        """
        budget_bytes = np.maximum(budget_bytes, 1)
        order = np.argsort(budget_bytes, kind="stable")  # quick: the points come in ascending runs
        budgets, lowest = budget_bytes[order], np.minimum.accumulate(makespan[order])
        last = np.append(budgets[1:] != budgets[:-1], True)
        budgets, lowest = budgets[last], lowest[last]
        better = np.append(True, lowest[1:] < lowest[:-1])
        return cls(budgets[better], lowest[better], exactness, store_all_makespan)

    @property
    def minimum_budget_bytes(self) -> int:
        """Bytes of the leanest plan."""
        return int(self.budget_bytes[0])

    @cached_property
    def slowdown_ratio(self) -> Costs:
        """Makespans over that of full BPTT, point by point; finite."""
        if not self.store_all_makespan:
            return np.where(self.makespan, LARGEST_RATIO, 1.0)
        with np.errstate(over="ignore"):
            return np.minimum(self.makespan / self.store_all_makespan, LARGEST_RATIO)

    def slowdown_at(self, point: int) -> float:
        """The slowdown of one point."""
        return float(self.slowdown_ratio[point])

    def points_for(self, available_bytes: Bytes) -> NDArray[np.intp]:
        """Index of the point that answers each amount of bytes; -1 where nothing fits."""
        return np.searchsorted(self.budget_bytes, available_bytes, side="right") - 1

    def first_point_within(self, maximum_slowdown_ratio: float | None) -> int:
        """Index of the leanest point that is no slower than that; the number of points when there is none."""
        if maximum_slowdown_ratio is None:
            return 0
        slower = self.slowdown_ratio > maximum_slowdown_ratio * (1 + 1e-12)
        return int(np.count_nonzero(slower))
