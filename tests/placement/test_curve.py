"""A curve keeps what no point beats and answers every amount of bytes."""

from __future__ import annotations

import sys

import numpy as np

from planner_service.placement import Curve
from tests.placement.sites import GIB, curve


def brute_force(points, available):
    fitting = [makespan for budget, makespan in points if budget <= available]
    return min(fitting, default=None)


def test_every_amount_of_bytes_is_answered_by_the_best_point_that_it_covers():
    generator = np.random.default_rng(5)
    for _ in range(50):
        budgets = generator.integers(1, 40, 30)
        makespans = generator.integers(1, 20, 30).astype(float)
        made = Curve.of(budgets, makespans, exactness="bound", store_all_makespan=1.0)
        points = list(zip(budgets.tolist(), makespans.tolist(), strict=True))
        available = np.arange(0, 45)
        for amount, point in zip(available.tolist(), made.points_for(available).tolist(), strict=True):
            found = None if point < 0 else made.makespan[point]
            assert found == brute_force(points, amount)


def test_budgets_ascend_and_makespans_descend():
    made = curve((3, 100), (1, 300), (2, 300), (2, 200), (4, 100))
    assert made.budget_bytes.tolist() == [GIB, 2 * GIB, 3 * GIB]
    assert made.makespan.tolist() == [300, 200, 100]
    assert made.minimum_budget_bytes == GIB


def test_the_first_point_within_a_slowdown_is_the_leanest_one():
    made = curve((1, 300), (2, 200), (3, 100))
    assert [made.first_point_within(ratio) for ratio in (None, 5.0, 3.0, 2.5, 2.0, 1.0)] == [0, 0, 0, 1, 1, 2]


def test_a_chain_that_costs_nothing_is_no_slower_than_itself():
    made = curve((1, 0), full=0.0)
    assert made.slowdown_at(0) == 1.0
    assert made.first_point_within(1.0) == 0


def test_slowdowns_are_numbers_whatever_full_bptt_costs():
    """Infinity is no number of JSON; what costs something where full BPTT costs nothing is no less slow"""
    for full in (0.0, 1e-300):
        made = curve((1, 1e100), full=full)
        assert made.slowdown_at(0) == sys.float_info.max
        assert made.first_point_within(1e6) == 1
