"""Chains of millions of stages: planned, or refused in no time."""

from __future__ import annotations

from unittest import mock

import pytest

from planner_service.chain import BudgetTooSmall, Chain, InvalidChain, Stage, StageRun
from planner_service.contract import PlanRequest, SimulationRequest
from planner_service.planning import Planner, least
from planner_service.solvers import optimal
from planner_service.solvers.needs import chain_needs
from planner_service.solvers.sections import Sections
from tests.contract.requests import LSTM, changed
from tests.serving import chain_request


def test_more_stages_than_can_be_planned_are_refused_before_tables_of_them_are_made():
    """A thousand million stages took gigabytes at once, and the service with them"""
    endless = chain_request(count=10**9, budget_bytes=10**15)
    with pytest.raises(InvalidChain, match="up to 10000000 are planned") as refused:
        Planner().plan(PlanRequest.model_validate(endless))
    assert refused.value.field == "model.stages"
    whole = {"model": endless["model"], "policy": {"root": 0, "nodes": [["tape", 10**9, -1]]}}
    assert Planner().simulate(SimulationRequest.model_validate(whole)).legal  # a replay needs no table


def test_ten_million_stages_are_planned_as_a_million_are():
    stage = Stage(forward_cost=1, taped_forward_cost=1, backward_cost=2, state_bytes=1, tape_bytes=4)
    assert Sections(chain_needs(Chain((StageRun(10_000_000, stage),)))).convex


def test_the_least_budget_of_long_unequal_chains_is_not_sought_by_replays_of_every_stage():
    """Each replay of a million stages takes seconds, and there are dozens"""
    stages = [
        Stage(
            forward_cost=cost, taped_forward_cost=cost, backward_cost=2, state_bytes=cost, tape_bytes=4 + cost
        )
        for cost in (1, 2)
    ]
    chain = Chain(tuple(StageRun(150_000, stage) for stage in stages))
    with mock.patch.object(optimal, "draft_hidden", side_effect=AssertionError("replayed")):
        assert optimal.minimum_budget_bytes(chain) > 0


def test_what_is_named_as_the_least_of_a_long_sequence_has_a_plan():
    """The finest cut needs least, but a plan of so many stages in so little has too many decisions"""
    request = changed(LSTM, "sequence", "length", to=150)

    def plan(budget_bytes):
        return Planner().plan(
            PlanRequest.model_validate(changed(request, "memory", "device_budget_bytes", to=budget_bytes))
        )

    def named():
        with pytest.raises(BudgetTooSmall) as refused:
            plan(1)
        return refused.value.minimum_budget_bytes

    of_the_finest = named()
    with mock.patch.object(least, "MOST_DECISIONS", 100):
        enough = named()
        assert enough > of_the_finest
        assert plan(enough).memory.minimum_budget_bytes == enough
        # The finest cut may still be planned in less; then it is not said that this is too little.
        assert plan(of_the_finest).memory.minimum_budget_bytes == of_the_finest
