"""Places over HTTP: the answer of the planner, and plans that are there when they were made."""

from __future__ import annotations

import json
from pathlib import Path

from planner_service.client import PlannerClient
from planner_service.contract import PlacementReply, PlacementRequest
from planner_service.planning import Planner

EXAMPLE = Path(__file__).parents[2] / "openapi" / "examples" / "placements" / "cluster.json"


def test_the_service_answers_what_the_planner_answers(http):
    request = json.loads(EXAMPLE.read_text())
    answer = PlacementReply.model_validate(http.post("/v1/placements", json=request).json())
    assert answer == Planner().place(PlacementRequest.model_validate(request))


def test_the_plan_of_the_best_offer_is_kept_and_the_others_can_be_made(service):
    with PlannerClient(service.url) as planner:
        (job,) = planner.place(json.loads(EXAMPLE.read_text())).jobs
        best = job.offers[0]
        plan = planner.get_plan(best.plan_id)
    assert best.planned
    assert plan.memory.budget_bytes == best.budget_bytes
    assert plan.cost.overhead_ratio + 1 == best.slowdown_ratio


def test_a_wrong_hole_is_refused_by_its_path(http):
    request = json.loads(EXAMPLE.read_text())
    request["holes"][1]["memory_total_bytes"] = "80 lots"
    problem = http.post("/v1/placements", json=request).json()
    assert problem["field"] == "holes[1].memory_total_bytes"
    request["holes"][1] = {"name": "x", "memory_total_bytes": 1, "mig_slice": "1g.5gb", "fraction": 0.5}
    problem = http.post("/v1/placements", json=request).json()
    assert problem["field"] == "holes[1].fraction"


def test_an_answer_of_too_many_offers_is_refused(http):
    (job, *_), hole = json.loads(EXAMPLE.read_text())["jobs"], {"name": "h", "memory_total_bytes": "1GiB"}
    request = {"jobs": [job] * 200, "holes": [hole] * 600, "most_offers": 600}
    answer = http.post("/v1/placements", json=request)
    assert answer.status_code == 422
    assert answer.json()["field"] == "most_offers"
