"""Whoever cancels is answered in the middle of a replay: the longest take minutes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module

import pytest

from planner_service.chain import Chain, Stage, StageRun
from planner_service.contract import PlanRequest, SimulationRequest
from planner_service.planning import Planner
from planner_service.solvers import Cancellation, Cancelled, solve
from planner_service.solvers.polling import ACTIONS_PER_POLL
from tests.contract.requests import CHAIN, changed

STAGE = Stage(forward_cost=1, taped_forward_cost=1, backward_cost=2, state_bytes=1, tape_bytes=4)
LENGTH = 400
CANCELLED_AT = 20
TIER = {"name": "host", "budget_bytes": 40, "write_seconds_per_byte": 0.25}


class Drawn:
    """Actions that are expanded, the cancellation called at one of them; `count` tells how many were."""

    def __init__(self, patch: pytest.MonkeyPatch, module: str, name: str) -> None:
        self.cancellation = Cancellation()
        self.count = 0
        place = import_module(f"planner_service.{module}")
        self._expand = getattr(place, name)
        patch.setattr(place, name, self._watched)

    def _watched(self, *given: object) -> Iterator[object]:
        for action in self._expand(*given):
            self.count += 1
            if self.count == CANCELLED_AT:
                self.cancellation.cancel()
            yield action


def assert_stopped(drawn: Drawn) -> None:
    assert CANCELLED_AT <= drawn.count <= CANCELLED_AT + ACTIONS_PER_POLL


@pytest.mark.parametrize(
    ("strategy", "budget_bytes"),
    [("optimal", 30), ("every_k", 110), ("chen_recursive", 60), ("hidden", 30), ("internal", 60)],
)
def test_every_strategy_stops_in_its_replay(monkeypatch, strategy, budget_bytes):
    """The judge's"""
    drawn = Drawn(monkeypatch, "solvers.solve", "expand")
    chain = Chain((StageRun(LENGTH, STAGE),), input_bytes=1)
    with pytest.raises(Cancelled):
        solve(chain, budget_bytes, strategy, cancellation=drawn.cancellation)
    assert_stopped(drawn)


class CancelledSoon(Cancellation):
    """Cancelled at the look that is told; `count` tells how many there were."""

    count = 0

    def check(self) -> None:
        self.count += 1
        if self.count == CANCELLED_AT:
            self.cancel()
        super().check()


@pytest.mark.parametrize("strategy", ["every_k", "chen_recursive", "hidden", "internal"])
def test_every_search_for_a_parameter_stops_while_it_counts(strategy):
    """Policies of long chains have as many nodes as stages"""
    cancellation = CancelledSoon()
    with pytest.raises(Cancelled):
        solve(Chain((StageRun(LENGTH, STAGE),)), 300, strategy, cancellation=cancellation)
    assert cancellation.count == CANCELLED_AT


def test_windows_are_cut_until_somebody_cancels(monkeypatch):
    """Stages that all differ make as many windows as stages"""
    drawn = Drawn(monkeypatch, "solvers.truncated", "moments")
    stages = [replace(STAGE, state_bytes=1 + index % 7, tape_bytes=9) for index in range(LENGTH)]
    with pytest.raises(Cancelled):
        solve(Chain.of(stages), 30, "truncated", cancellation=drawn.cancellation)
    assert_stopped(drawn)


@pytest.mark.parametrize(
    ("module", "name", "tiers"),
    [
        ("planning.plan", "expand", []),
        ("planning.plan", "expand_tiers", [TIER]),
        ("solvers.offload.solve", "expand_tiers", [TIER]),
        ("solvers.offload.search", "expand_tiers", [TIER]),
    ],
)
def test_a_plan_stops_in_the_replay_of_its_ledger_and_of_its_tiers(monkeypatch, module, name, tiers):
    """After the solver, too"""
    drawn = Drawn(monkeypatch, module, name)
    request = changed(CHAIN, "model", "stages", 0, "count", to=LENGTH)
    request = {**request, "memory": {"device_budget_bytes": 60, "tiers": tiers}}
    if tiers:
        request["strategy"] = "offload"
    with pytest.raises(Cancelled):
        Planner(()).plan(PlanRequest.model_validate(request), drawn.cancellation)
    assert_stopped(drawn)


@pytest.mark.parametrize(("name", "tiers"), [("expand", []), ("expand_tiers", [TIER])])
def test_a_policy_to_simulate_stops_while_it_is_expanded(monkeypatch, name, tiers):
    """Up to five million actions, before the first is replayed"""
    request = changed(CHAIN, "model", "stages", 0, "count", to=LENGTH)
    plan = Planner(()).plan(PlanRequest.model_validate({**request, "memory": {"device_budget_bytes": 60}}))
    drawn = Drawn(monkeypatch, "planning.schedules", name)
    asked = {"model": request["model"], "policy": plan.policy, "memory": {"tiers": tiers}}
    with pytest.raises(Cancelled):
        Planner(()).simulate(SimulationRequest.model_validate(asked), drawn.cancellation)
    assert_stopped(drawn)
