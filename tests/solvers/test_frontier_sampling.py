"""Sampling any staircase: both ends are there, every step is found in time, no budget is priced twice."""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from planner_service.solvers import FrontierPoint, sampled

stairs = st.lists(st.integers(0, 400), min_size=1, max_size=20, unique=True).map(sorted)


class Stairs:
    """Makespans that fall at given budgets, and what was asked of them."""

    def __init__(self, budgets):
        self.budgets = budgets
        self.asked = []

    def point(self, step):
        return FrontierPoint(self.budgets[step], float((len(self.budgets) - step) ** 2))

    def price(self, budget_bytes):
        self.asked.append(budget_bytes)
        return self.point(bisect_right(self.budgets, budget_bytes) - 1)


@given(stairs, st.integers(2, 50))
def test_few_points_lie_on_the_stairs_and_reach_both_ends(budgets, most_points):
    whole = Stairs(budgets)
    found = sampled(whole.price, least_bytes=budgets[0], most_bytes=budgets[-1] + 5, most_points=most_points)
    assert set(found) <= {whole.point(step) for step in range(len(budgets))}
    assert (found[0], found[-1]) == (whole.point(0), whole.point(len(budgets) - 1))
    assert len(found) <= most_points
    assert len(whole.asked) == len(set(whole.asked)) <= 2 * most_points


@given(stairs)
def test_with_time_enough_every_step_is_found(budgets):
    whole = Stairs(budgets)
    found = sampled(whole.price, least_bytes=budgets[0], most_bytes=budgets[-1], most_points=500)
    assert found == [whole.point(step) for step in range(len(budgets))]


def test_points_gather_where_little_memory_changes_most():
    """No two neighbours differ by an eighth of full speed, and half lie in the first tenth of the bytes."""
    found = sampled(
        lambda budget_bytes: FrontierPoint(budget_bytes, 1 + 1e4 / budget_bytes),
        least_bytes=1_000,
        most_bytes=1_000_000,
        most_points=21,
    )
    assert len(found) == 21
    assert found[10].budget_bytes < 100_000
    for left, right in pairwise(found):
        assert 1 / right.makespan - 1 / left.makespan < 1 / 8
