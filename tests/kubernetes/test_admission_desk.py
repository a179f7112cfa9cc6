"""What the webhook's desk asks for on clusters of fractions, of slices and of types without a name."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from pydantic import ValidationError

from planner_service.api.jobs.admission_desk import AdmissionDesk
from planner_service.contract import PlanRequest, canonical_json, problem_from_validation
from planner_service.contract.admission import AdmissionReview
from planner_service.contract.holes import HoleRecord
from planner_service.planning import Planner
from planner_service.store import PlanStore, open_database
from planner_service.store.plans import StoredPlan
from tests.kubernetes.json_patch import applied
from tests.kubernetes.reviews_on_file import DEFAULTED, patch_of, review

QUESTION = {
    "model": {"kind": "lstm", "input_size": 64, "hidden_size": 128},
    "sequence": {"length": 100, "batch_size": 4},
    "device": "cuda",
}
BUDGET = {"device_budget_bytes": "8GiB"}


@pytest.fixture
def plans(tmp_path):
    """A store with a plan of 8 GiB, and its id."""
    engine = open_database(f"sqlite:///{tmp_path / 'tightfit.sqlite3'}")
    store = PlanStore(engine)
    request = PlanRequest.model_validate({**QUESTION, "memory": BUDGET})
    plan = Planner().plan(request)
    store.add(StoredPlan(plan.id, canonical_json(request), plan.model_dump_json().encode()))
    yield store, plan.id
    engine.dispose()


def answer(store, holes, annotations):
    """The response to an annotated Job."""
    desk = AdmissionDesk(Planner(), store, [HoleRecord.model_validate(hole) for hole in holes])
    asked = review(annotations, of=DEFAULTED)
    try:
        reply = asyncio.run(desk.review(AdmissionReview.model_validate(asked)))
    finally:
        desk.close()
    response = reply.response.model_dump(exclude_none=True)
    return response, applied(asked["request"]["object"], patch_of(response)) if "patch" in response else None


def resources(job):
    pod = job["spec"]["template"]["spec"]
    return pod["containers"][0]["resources"].get("limits"), pod.get("affinity")


WHOLE = {"name": "w", "device": "A100", "memory_total_bytes": "80GiB"}
SMALL = {"name": "s", "device": "T4", "memory_total_bytes": "4GiB"}
SLICE = {"name": "m", "device": "A100", "mig_slice": "2g.20gb", "memory_total_bytes": "20GiB"}
UNNAMED = {"name": "u", "memory_total_bytes": "80GiB"}


def test_a_slice_is_asked_for_where_no_whole_gpu_holds_the_plan(plans):
    store, plan_id = plans
    _, job = answer(store, [SMALL, SLICE], {"tightfit/plan": plan_id})
    assert resources(job) == ({"nvidia.com/mig-2g.20gb": "1"}, None)
    _, job = answer(store, [SLICE, WHOLE], {"tightfit/plan": plan_id})
    limits, affinity = resources(job)
    assert limits == {"nvidia.com/gpu": "1"}
    assert "A100" in json.dumps(affinity)


def test_a_type_without_a_name_is_any_gpu_only_where_all_hold_the_plan(plans):
    store, plan_id = plans
    _, job = answer(store, [UNNAMED], {"tightfit/plan": plan_id})
    assert resources(job) == ({"nvidia.com/gpu": "1"}, None)
    response, job = answer(store, [UNNAMED, SMALL], {"tightfit/plan": plan_id})
    assert (response["allowed"], job) == (True, None)
    assert "no product name" in response["warnings"][0]


def test_fractions_alone_leave_the_job_as_it_is_with_a_word(plans):
    """Unless the Job names a claim, which needs no count of devices"""
    store, _ = plans
    request = {"tightfit/request": json.dumps(QUESTION)}
    response, job = answer(store, [{**WHOLE, "fraction": 0.5}], request)
    assert (response["allowed"], job) == (True, None)
    assert "only fractions" in response["warnings"][0]
    _, job = answer(store, [{**WHOLE, "fraction": 0.5}], {**request, "tightfit/claim-template": "gpu-8gib"})
    assert job["spec"]["template"]["spec"]["resourceClaims"][0]["resourceClaimTemplateName"] == "gpu-8gib"


POD = "object.spec.template.spec"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("object.metadata", "a name"),
        ("object.metadata.annotations", ["tightfit/plan"]),
        ("object.metadata.annotations.tightfit/request", 1.5),
        (f"{POD}.containers", {"name": "worker"}),
        (f"{POD}.containers[0]", None),
        (f"{POD}.containers[0].resources", "all"),
        (f"{POD}.containers[0].resources.limits", 1),
    ],
)
def test_what_is_no_job_is_refused_by_field(field, value):
    """The route asks nobody for a key: whoever sends this is no API server, and made a 500 of each"""
    asked = review({"tightfit/request": json.dumps(QUESTION)}, of=DEFAULTED)
    *path, last = re.findall(r"[^.[\]]+", field)
    part = asked["request"]
    for name in path:
        part = part[int(name) if name.isdigit() else name]
    part[int(last) if last.isdigit() else last] = value
    with pytest.raises(ValidationError) as refused:
        AdmissionReview.model_validate(asked)
    assert problem_from_validation(refused.value).field == f"request.{field}"


def test_a_job_comes_out_of_its_review_as_it_was_sent():
    asked = review({"tightfit/plan": "x"}, of=DEFAULTED)
    asked["request"]["object"]["spec"]["template"]["spec"]["resourceClaims"] = None
    assert AdmissionReview.model_validate(asked).request.job == asked["request"]["object"]
