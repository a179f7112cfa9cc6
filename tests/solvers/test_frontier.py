"""The frontier: every point can be planned, none is dominated, the ends are the extremes."""

from __future__ import annotations

import pytest
from hypothesis import given

from planner_service.chain import Chain, Stage, StageRun
from planner_service.solvers import frontier, knee, minimum_budget_bytes, solve
from tests.oracles.chains import chains

UNIT = Stage(forward_cost=1, taped_forward_cost=1, backward_cost=2, state_bytes=1, tape_bytes=4)


@given(chains(max_length=6))
def test_a_small_frontier_is_complete(chain):
    """Between two points solving gives the makespan of the lower one: no budget was left out."""
    points = frontier(chain, most_points=10_000)
    assert points[0].budget_bytes == minimum_budget_bytes(chain)
    for point, following in zip(points, [*points[1:], None], strict=True):
        assert solve(chain, point.budget_bytes).verdict.makespan == pytest.approx(point.makespan)
        if following is not None:
            between = solve(chain, following.budget_bytes - 1).verdict.makespan
            assert between == pytest.approx(point.makespan)


def test_a_long_frontier_descends_from_the_least_budget_to_full_backpropagation():
    chain = Chain((StageRun(2_000, UNIT),))
    points = frontier(chain, most_points=60)
    assert points[0].budget_bytes == minimum_budget_bytes(chain)
    assert points[-1].makespan == chain.store_all_makespan
    assert [point.budget_bytes for point in points] == sorted({point.budget_bytes for point in points})
    assert [-point.makespan for point in points] == sorted({-point.makespan for point in points})
    for point in points[::20]:
        assert solve(chain, point.budget_bytes).verdict.makespan <= point.makespan


def test_the_knee_lies_inside():
    points = frontier(Chain((StageRun(50, UNIT),)))
    assert points[0] != knee(points) != points[-1]
