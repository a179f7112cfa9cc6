"""What a request may say about storage tiers, and by which path a wrong one is named."""

import math

import pytest
from pydantic import ValidationError

from planner_service.chain import Tier
from planner_service.contract import (
    FrontierRequest,
    PlanRequest,
    SimulationRequest,
    canonical_json,
    problem_from_validation,
    tiers_of,
)
from tests.contract.requests import CHAIN, MISSING, changed

HOST = {"name": "host", "budget_bytes": "1KiB"}
FULL = {
    "name": "disk",
    "budget_bytes": 7,
    "write_seconds_per_byte": 1,
    "read_seconds_per_byte": 2.5,
    "write_latency_seconds": 3,
    "read_latency_seconds": 0,
    "overlapped": False,
}


def with_tiers(*tiers):
    return changed(CHAIN, "memory", "tiers", to=list(tiers))


def field_of_refusal(request, kind=PlanRequest):
    with pytest.raises(ValidationError) as refusal:
        kind.model_validate(request)
    return problem_from_validation(refusal.value).field


def test_tiers_keep_their_order_and_become_the_planners():
    memory = PlanRequest.model_validate(with_tiers(HOST, FULL)).memory
    assert tiers_of(memory.tiers) == (
        Tier(name="host", budget_bytes=1024, overlapped=True),
        Tier(
            name="disk",
            budget_bytes=7,
            write_seconds_per_byte=1,
            read_seconds_per_byte=2.5,
            write_latency_seconds=3,
        ),
    )


def test_no_tiers_and_an_empty_list_are_the_same_question():
    without, empty = (PlanRequest.model_validate(request) for request in (CHAIN, with_tiers()))
    assert canonical_json(without) == canonical_json(empty)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", ""),
        ("name", "device"),
        ("name", "x" * 65),
        ("name", MISSING),
        ("budget_bytes", 0),
        ("budget_bytes", MISSING),
        ("write_seconds_per_byte", -1),
        ("read_seconds_per_byte", math.inf),
        ("read_seconds_per_byte", 1e101),
        ("write_latency_seconds", math.nan),
        ("read_latency_seconds", "1"),
        ("overlapped", "yes"),
        ("bandwidth", 1),
    ],
)
def test_a_wrong_field_of_a_tier_is_named_by_its_path(name, value):
    tier = changed({**HOST, name: None}, name, to=value)
    assert field_of_refusal(with_tiers(FULL, tier)) == f"memory.tiers[1].{name}"


@pytest.mark.parametrize("tiers", [[HOST, HOST], [{**HOST, "name": str(index)} for index in range(5)]])
def test_equal_names_and_more_than_four_tiers_are_refused(tiers):
    assert field_of_refusal(with_tiers(*tiers)) == "memory.tiers"
    simulation = {"model": CHAIN["model"], "schedule": [], "memory": {"tiers": tiers}}
    assert field_of_refusal(simulation, SimulationRequest) == "memory.tiers"


def test_offload_without_tiers_is_refused_at_the_tiers():
    assert field_of_refusal(changed(CHAIN, "strategy", to="offload")) == "memory.tiers"


def test_a_frontier_refuses_tiers():
    request = {"model": CHAIN["model"], "memory": {"tiers": [HOST]}}
    assert field_of_refusal(request, FrontierRequest) == "memory.tiers"
