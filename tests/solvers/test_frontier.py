"""The frontier: every point can be planned, none is dominated, the ends are the extremes."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_service.chain import Chain, Stage, StageRun
from planner_service.solvers import (
    Cancellation,
    Cancelled,
    FrontierPoint,
    affordable_points,
    frontier,
    knee,
    minimum_budget_bytes,
    non_dominated,
    solve,
)
from tests.oracles.chains import chains

UNIT = Stage(forward_cost=1, taped_forward_cost=1, backward_cost=2, state_bytes=1, tape_bytes=4)


ODD = Stage(
    forward_cost=1,
    taped_forward_cost=1,
    backward_cost=2,
    state_bytes=32,
    tape_bytes=113,
    forward_workspace_bytes=9,
)
"""Sizes without a common divisor: a long chain of these has too many memory levels for one table."""


def assert_solved(chain, points):
    """Every point is what `solve` answers to its budget, and they descend from the least budget."""
    assert points[0].budget_bytes == minimum_budget_bytes(chain)
    assert points[-1].makespan == chain.store_all_makespan
    for left, right in pairwise(points):
        assert left.budget_bytes < right.budget_bytes
        assert left.makespan > right.makespan
    for point in points:
        assert solve(chain, point.budget_bytes).verdict.makespan == pytest.approx(point.makespan)


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


def test_a_frontier_of_exabytes_loses_no_level():
    """A stage that needs as much as 2**50 of its smaller units: such a range's steps have no exact float."""
    stage = Stage(forward_cost=6, taped_forward_cost=5, backward_cost=2, state_bytes=0, tape_bytes=0)
    chain = Chain(
        (StageRun(2, replace(stage, taped_forward_workspace_bytes=2**50)),),
        input_bytes=1,
        loss_gradient_bytes=2**58,
        input_gradient_bytes=0,
    )
    assert_solved(chain, frontier(chain))


@pytest.mark.parametrize("stage", [UNIT, ODD], ids=["unit", "odd"])
def test_a_long_frontier_is_what_solve_answers(stage):
    """A thousand equal stages: too many levels for one table, so the frontier is sampled."""
    chain = Chain((StageRun(1_000, stage),), input_bytes=32, loss_gradient_bytes=32)
    points = frontier(chain, most_points=30)
    assert 20 <= len(points) <= 30
    assert_solved(chain, points)


def test_a_sampled_frontier_leaves_no_wide_gap():
    """Where memory is scarce as well as where it abounds: no step loses more than a fifth of the speed."""
    chain = Chain((StageRun(1_000, ODD),), input_bytes=32, loss_gradient_bytes=32)
    for left, right in pairwise(frontier(chain, most_points=30)):
        assert right.makespan >= 0.8 * left.makespan or right.budget_bytes - left.budget_bytes <= 64


@given(chains(max_length=5), st.integers(2, 12))
def test_a_sampled_frontier_of_a_small_chain_is_part_of_the_whole(chain, most_points):
    """Forced to sample, with a solve for each budget as the oracle."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(import_module("planner_service.solvers.frontier"), "MOST_LEVELS", 0)
        few, every = frontier(chain, most_points=most_points), frontier(chain, most_points=10_000)
    assert len(few) <= most_points
    assert_solved(chain, few)
    assert_solved(chain, every)
    budgets = range(every[0].budget_bytes, every[-1].budget_bytes + 1)
    answers = [FrontierPoint(budget, solve(chain, budget).verdict.makespan) for budget in budgets]
    assert every == non_dominated(answers)


def test_a_plan_that_takes_seconds_is_made_for_few_points():
    unequal = [replace(ODD, tape_bytes=10_000 + 7**index % 9_973) for index in range(400)]
    assert affordable_points(Chain.of(unequal)) == 8
    assert affordable_points(Chain.of(unequal[:20])) == 500
    assert affordable_points(Chain((StageRun(1_000, ODD),))) == 500


def test_sampling_stops_when_it_is_cancelled():
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(Cancelled):
        frontier(Chain((StageRun(1_000, ODD),)), cancellation=cancellation)


def test_the_knee_lies_inside():
    points = frontier(Chain((StageRun(50, UNIT),)))
    assert points[0] != knee(points) != points[-1]
