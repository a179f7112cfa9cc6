"""Large bodies: answered as small ones are, refused in the same words, and parsed off the event loop."""

from __future__ import annotations

import json
import threading

import httpx
import pytest
from fastapi.routing import APIRoute

from planner_service.api.answers.large_bodies import LARGE_BYTES, LargeBodyRoute
from planner_service.api.routes import ROUTERS
from tests.serving import CHAIN, chain_request

JSON = {"content-type": "application/json"}


def large(document: dict) -> bytes:
    """The same document in more bytes."""
    return json.dumps(document).encode() + b" " * LARGE_BYTES


def without_id(answer: httpx.Response) -> dict:
    return {name: value for name, value in answer.json().items() if name != "request_id"}


def test_the_size_of_a_body_changes_nothing(http):
    small = http.post("/v1/plans", json=chain_request(count=77))
    same = http.post("/v1/plans", content=large(chain_request(count=77)), headers=JSON)
    assert (small.status_code, same.status_code) == (201, 200)
    assert small.content == same.content
    again = http.post("/v1/plans", content=large(chain_request(count=77)), headers=JSON)
    assert again.content == same.content


@pytest.mark.parametrize(
    "path", ["plans", "frontiers", "comparisons", "simulations", "placements", "profiles"]
)
def test_a_wrong_field_is_refused_in_the_same_words(http, path):
    wrong = {"model": {"kind": "chain", "stages": []}, "memory": {"device_budget_bytes": "much"}}
    small = http.post(f"/v1/{path}", json=wrong)
    same = http.post(f"/v1/{path}", content=large(wrong), headers=JSON)
    assert small.status_code == same.status_code == 422
    assert without_id(small) == without_id(same)


@pytest.mark.parametrize("body", [b'{"a" 1', b'"\xff"', b"[" * 100_000, b'{"a": nil}'])
def test_what_is_no_json_is_refused_in_the_same_words(http, body):
    small = http.post("/v1/frontiers", content=body, headers=JSON)
    same = http.post("/v1/frontiers", content=body + b" " * LARGE_BYTES, headers=JSON)
    assert small.status_code == same.status_code == 400
    assert without_id(small) == without_id(same)


def wrong_reviews(containers):
    job = {"spec": {"template": {"spec": {"containers": containers}}}}
    kind = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}
    return {**kind, "request": {"uid": "u", "object": job}}


MANY = 100_000
BOMBS = {
    "stages": ("plans", {**CHAIN, "model": {"kind": "chain", "stages": [{}] * MANY}}, "model.stages[0]"),
    "actions": ("simulations", {**CHAIN, "schedule": [0] * MANY}, "schedule[0]"),
    "losses": ("measurements", {"losses": ["a"] * MANY}, "losses[0]"),
    "holes": ("placements", {"jobs": [{}], "holes": [0] * MANY}, "holes[0]"),
    "segments": ("profiles", {"segments": [0] * MANY, "static": [0] * MANY}, "segments[0]"),
    "containers": ("kubernetes/admission", wrong_reviews([0] * MANY), "containers[0]"),
    "unknown fields": ("jobs", {f"field{number}": 0 for number in range(MANY)}, "wrong or unknown"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_body_that_is_wrong_everywhere_is_refused_without_a_word_on_each(http, bomb):
    """Two MiB of them took 2.4 GB and fifteen seconds, one MiB of anybody's making half of that"""
    path, document, told = BOMBS[bomb]
    answer = http.post(f"/v1/{path}", json=document)
    assert answer.status_code == 422
    problem = answer.json()
    assert told in problem["detail"] or any(told in each["field"] for each in problem["errors"])
    assert len(problem.get("errors", [])) < 20


def test_every_route_with_a_message_parses_large_ones_off_the_event_loop():
    for router in ROUTERS:
        for route in router.routes:
            if isinstance(route, APIRoute) and route.body_field is not None:
                assert isinstance(route, LargeBodyRoute), route.path


@pytest.mark.parametrize(
    "media_type", ["application/json", "application/json; charset=utf-8", "Application/Vnd.Plan+JSON"]
)
def test_a_large_body_is_not_parsed_by_the_event_loops_thread(monkeypatch, media_type):
    """In this process, so that it can be seen which thread does it"""
    import asyncio

    from starlette.requests import Request

    from planner_service.api.answers import large_bodies
    from planner_service.contract import PlanRequest

    found = []
    parse = large_bodies._message

    def noted(body, kind):
        found.append(threading.current_thread())
        return parse(body, kind)

    monkeypatch.setattr(large_bodies, "_message", noted)

    async def ask() -> PlanRequest:
        body = large(chain_request())

        async def receive():
            return {"type": "http.request", "body": body, "more_body": False}

        scope = {"type": "http", "method": "POST", "headers": [(b"content-type", media_type.encode())]}
        read = await large_bodies._with_message(Request(scope, receive), PlanRequest)
        return await read.json()

    assert asyncio.run(ask()) == PlanRequest.model_validate(chain_request())
    (thread,) = found
    assert thread is not threading.main_thread()
