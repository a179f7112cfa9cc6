"""What is kept of a heap of points, and where the bend is."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from planner_service.solvers import FrontierPoint, knee, non_dominated
from planner_service.solvers.frontier_points import thinned

points = st.builds(FrontierPoint, st.integers(1, 50), st.integers(1, 50).map(float))


@given(st.lists(points, min_size=1))
def test_what_is_kept_is_not_beaten_and_what_is_dropped_is(given_points):
    kept = non_dominated(given_points)
    assert kept == sorted(kept)
    for point in given_points:
        assert any(k.budget_bytes <= point.budget_bytes and k.makespan <= point.makespan for k in kept)
    for left, right in pairwise(kept):
        assert left.makespan > right.makespan


def test_the_knee_of_a_bend_is_the_bend():
    bend = [FrontierPoint(0, 100.0), FrontierPoint(10, 10.0), FrontierPoint(100, 0.0)]
    assert knee(bend) == bend[1]
    assert knee(bend[:1]) == bend[0]


@given(st.integers(1, 300), st.integers(2, 100))
def test_thinning_keeps_both_ends_and_the_order(count, most):
    every = [FrontierPoint(index, float(-index)) for index in range(count)]
    kept = thinned(every, most)
    assert len(kept) == min(count, most)
    assert kept == sorted(set(kept))
    assert (kept[0], kept[-1]) == (every[0], every[-1])
