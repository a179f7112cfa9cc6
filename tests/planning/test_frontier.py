"""The frontier is made of plans that hold, none of which beats another."""

from itertools import pairwise

import pytest

from planner_service.chain import BudgetTooSmall
from planner_service.contract import FrontierRequest, PlanRequest
from planner_service.planning import Planner
from tests.contract.requests import CHAIN, changed, stage_of
from tests.planning.test_plan import SMALL

PLANNER = Planner(())
MODEL = changed(CHAIN, "model", "stages", 0, "count", to=30)["model"]
QUESTIONS = {
    "chain": {"model": MODEL},
    "gru": {name: SMALL[name] for name in ("model", "sequence", "training")},
}
ROUNDED = [
    [stage_of(3, 5, 0.3, 3, 3, count=3), stage_of(1, 1, 1, 3, 6, count=3)],
    [stage_of(0, 0.1, 1, 0, 1, count=3, taped_forward_workspace_bytes=3, backward_workspace_bytes=2)],
]
"""Stages of which two plans take the same time, summed in another order."""


def frontier_of(question, **asked):
    return PLANNER.frontier(FrontierRequest.model_validate({**question, **asked}))


def planned(question, budget_bytes):
    request = {**question, "memory": {"device_budget_bytes": budget_bytes}}
    return PLANNER.plan(PlanRequest.model_validate(request))


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
def test_every_point_is_what_its_budget_buys(question):
    reply = frontier_of(question, points=9)
    for point in reply.points:
        plan = planned(question, point.budget_bytes)
        assert plan.cost.makespan == point.makespan
        assert plan.memory.projected_peak_bytes <= point.budget_bytes
        assert point.overhead_ratio == point.makespan / reply.store_all_makespan - 1


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
def test_it_runs_from_the_least_budget_to_full_bptt(question):
    reply = frontier_of(question, points=5)
    assert reply.points[0].budget_bytes == reply.minimum_budget_bytes
    assert reply.points[-1].makespan == reply.store_all_makespan
    assert reply.points[-1].budget_bytes <= reply.store_all_peak_bytes
    assert reply.knee in reply.points


def test_the_price_of_the_next_mebibyte_is_the_slope_to_the_next_point():
    points = frontier_of(QUESTIONS["gru"], points=6).points
    for left, right in pairwise(points):
        mebibytes = (right.budget_bytes - left.budget_bytes) / 2**20
        assert left.saving_per_mebibyte * mebibytes == pytest.approx(left.makespan - right.makespan)
    assert points[-1].saving_per_mebibyte is None


def test_every_budget_of_a_small_chain_is_on_it_when_asked_for_all():
    """With a point for each byte, the frontier is what planning every single budget gives."""
    reply = frontier_of(QUESTIONS["chain"], points=500)
    every = [planned(QUESTIONS["chain"], budget) for budget in range(7, 122)]
    pairs = {(plan.memory.projected_peak_bytes, plan.cost.makespan) for plan in every}
    best = {}
    for peak, makespan in sorted(pairs):
        if not best or makespan < min(best.values()):
            best[peak] = makespan
    assert {point.budget_bytes: point.makespan for point in reply.points} == best


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5])
def test_the_least_bytes_within_an_overhead_are_enough_and_fewer_were_not(ratio):
    question = QUESTIONS["chain"]
    reply = frontier_of(question, points=2, at_most_overhead_ratio=ratio)
    limit = (1 + ratio) * reply.store_all_makespan
    assert reply.least_bytes.makespan <= limit
    assert planned(question, reply.not_enough_bytes).cost.makespan > limit
    assert reply.least_bytes.budget_bytes - reply.not_enough_bytes <= 1


def test_the_least_bytes_are_enough_where_free_bytes_are_rounded():
    """A plan that met the bound by rounding from above need not be found in its own peak"""
    stages = [
        stage_of(2, 0.3, 2, 0, 5000, count=4),
        stage_of(0, 1, 0.7, 10, 5010, count=1),
        stage_of(1, 1, 0.7, 1, 4, count=39, forward_workspace_bytes=4, backward_workspace_bytes=3),
        stage_of(1, 1, 0.7, 2, 5, count=5, gradient_bytes=0),
    ]
    question = {"model": {"kind": "chain", "input_bytes": 1, "loss_gradient_bytes": 2, "stages": stages}}
    least = frontier_of(question, points=2, at_most_overhead_ratio=0).least_bytes
    plan = planned(question, least.budget_bytes)
    assert plan.cost.makespan <= least.makespan
    assert "rounded" in plan.reason


def test_the_overhead_of_a_point_asked_for_again_is_answered_by_its_bytes():
    """Costs of tenths: sums in another order differ in the last digit, and so does a limit from a ratio."""
    for stages in ROUNDED:
        question = {"model": {"kind": "chain", "loss_gradient_bytes": 7, "stages": stages}}
        points = frontier_of(question, points=500).points
        assert all(right.makespan < left.makespan - 1e-6 for left, right in pairwise(points))
        for point in points:
            again = frontier_of(question, points=2, at_most_overhead_ratio=max(0.0, point.overhead_ratio))
            assert again.least_bytes.budget_bytes == point.budget_bytes


def test_the_least_time_within_bytes_is_the_plans():
    reply = frontier_of(QUESTIONS["chain"], points=2, at_most_bytes="40")
    assert reply.least_makespan.makespan == planned(QUESTIONS["chain"], 40).cost.makespan
    assert reply.least_makespan.budget_bytes <= 40


def test_bytes_below_the_least_are_refused_by_their_own_name():
    with pytest.raises(BudgetTooSmall) as refusal:
        frontier_of(QUESTIONS["chain"], at_most_bytes=2)
    assert refusal.value.field == "at_most_bytes"


def test_points_of_a_long_chain_are_plans_too():
    question = {"model": changed(CHAIN, "model", "stages", 0, "count", to=1_000)["model"]}
    reply = frontier_of(question, points=12)
    assert len(reply.points) >= 10
    for point in reply.points:
        assert planned(question, point.budget_bytes).cost.makespan == point.makespan
