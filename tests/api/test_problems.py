"""Whatever is wrong with a request, the answer is a problem document that says what to do."""

from __future__ import annotations

import gzip
import json
import socket

import httpx
import pytest

from planner_service.api.errors import RETRY_AFTER_SECONDS, STATUSES, ServiceError, TooManyRequests
from planner_service.jobs import IdempotencyKeyReused, JobRefusal
from tests.serving import CHAIN, chain_request

JSON = {"content-type": "application/json"}


def problem(answer: httpx.Response, status: int, slug: str) -> dict:
    """The answer's document, after checking what every problem must have."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["type"] == f"/problems/{slug}"
    assert document["status"] == status
    assert document["detail"]
    assert document["request_id"] == answer.headers["x-request-id"]
    return document


def test_every_refusal_of_the_service_has_a_status():
    listed = {*ServiceError.__subclasses__(), *JobRefusal.__subclasses__()}
    assert set(STATUSES) == listed - {IdempotencyKeyReused}  # 422, like every request that is wrong in itself


def test_every_refusal_that_is_about_now_says_when_to_ask_again():
    passing = {error for error, status in STATUSES.items() if status in (429, 503)}
    assert passing == {*RETRY_AFTER_SECONDS, TooManyRequests}  # which has the seconds of its caller


def test_an_unknown_path_is_404(http):
    assert problem(http.get("/v1/nothing"), 404, "unknown-path")["path"] == "/v1/nothing"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/plans", "POST"),
        ("DELETE", "/v1/plans/abc", "GET, HEAD"),
        ("PUT", "/v1/measurements", "GET, POST"),
        ("POST", "/healthz", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_405_and_names_the_right_ones(http, method, path, allowed):
    answer = http.request(method, path)
    problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "property name"),
        (b'{"model": nil}', "Expecting value"),
        (b'"\xff"', "UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"9" * 5_000, "digits"),
    ],
)
def test_a_body_that_is_not_json_is_400(http, body, reason):
    answer = http.post("/v1/plans", content=body, headers=JSON)
    assert reason in problem(answer, 400, "malformed-json")["detail"]


def test_a_compressed_body_is_415_and_says_why(http):
    """It was said to be no UTF-8"""
    packed = gzip.compress(json.dumps(CHAIN).encode())
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    answer = http.post("/v1/plans", content=packed, headers=headers)
    assert problem(answer, 415, "compressed-body")["content_encoding"] == "gzip"
    headers["content-encoding"] = "identity"
    assert http.post("/v1/plans", content=json.dumps(CHAIN), headers=headers).is_success


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_body_that_is_not_declared_as_json_is_415(http, media_type):
    headers = {"content-type": media_type} if media_type else {}
    answer = http.post("/v1/plans", content=json.dumps(CHAIN).encode(), headers=headers)
    assert problem(answer, 415, "unsupported-media-type")["media_type"] == media_type


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model": {"kind": "transformer"}}, "model.kind"),
        ({"model": {"kind": "chain", "stages": []}}, "model.stages"),
        ({"memory": {"device_budget_bytes": 0}}, "memory.device_budget_bytes"),
        ({"memory": {"device_budget_bytes": -1}}, "memory.device_budget_bytes"),
        ({"memory": {"device_budget_bytes": "2 parsecs"}}, "memory.device_budget_bytes"),
        ({"memory": {"device_budget_bytes": 1.5}}, "memory.device_budget_bytes"),
        ({"memory": {"device_budget_bytes": 10**30}}, "memory.device_budget_bytes"),
        ({"memory": {}}, "memory.device_budget_bytes"),
        ({"memroy": {}}, "memroy"),
        ({"memory": None}, "memory"),
        ({"strategy": ""}, "strategy"),
    ],
)
def test_a_wrong_field_is_422_and_named_by_its_path(http, change, field):
    document = problem(http.post("/v1/plans", json={**CHAIN, **change}), 422, "invalid-request")
    assert document["field"] == field
    assert document["errors"][0]["field"] == field


@pytest.mark.parametrize("name", ["forward_cost", "backward_cost", "state_bytes", "count"])
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "-1", "true", '"many"', "null"])
def test_numbers_that_are_none_are_refused_where_they_stand(http, name, value):
    request = chain_request()
    request["model"]["stages"][0][name] = "HERE"
    body = json.dumps(request).replace('"HERE"', value)
    document = problem(http.post("/v1/plans", content=body, headers=JSON), 422, "invalid-request")
    assert document["field"] == f"model.stages[0].{name}"


def test_an_unknown_strategy_names_the_known_ones(http):
    document = problem(http.post("/v1/plans", json={**CHAIN, "strategy": "magic"}), 422, "unknown-strategy")
    assert "optimal" in document["known"]


def test_a_wrong_query_parameter_is_422(http):
    document = problem(http.get("/v1/measurements?limit=0"), 422, "invalid-request")
    assert document["field"] == "query.limit"


def test_halves_of_surrogate_pairs_are_refused_not_choked_on(http):
    body = b'{"\\ud800": "\\udfff", "strategy": "\\ud800"}'
    problem(http.post("/v1/plans", content=body, headers=JSON), 422, "invalid-request")


def test_a_body_over_the_limit_is_413_with_the_limit(http):
    answer = http.post("/v1/plans", content=b" " * (8 * 2**20 + 1), headers=JSON)
    assert problem(answer, 413, "body-too-large")["maximum_body_bytes"] == 8 * 2**20


def test_a_body_over_the_limit_is_413_when_no_length_is_declared(http):
    chunks = (b" " * 2**16 for _ in range(130))
    problem(http.post("/v1/plans", content=chunks, headers=JSON), 413, "body-too-large")


def test_a_huge_declared_length_is_refused_before_it_is_sent(service):
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/plans HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 99999999999\r\n\r\n{"
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_the_callers_request_id_is_kept_and_a_strange_one_replaced(http):
    assert http.get("/healthz", headers={"x-request-id": "job-7"}).headers["x-request-id"] == "job-7"
    strange = http.get("/healthz", headers={"x-request-id": "a b\t<script>"}).headers["x-request-id"]
    assert strange.isalnum()


def test_a_policy_that_expands_without_end_is_refused_at_once(http):
    nodes = [["tape", 1, -1], *(["checkpoint", 2**level, level, level] for level in range(39))]
    request = {"model": chain_request(count=2**39)["model"], "policy": {"root": 39, "nodes": nodes}}
    problem(http.post("/v1/simulations", json=request), 422, "schedule-too-long")
