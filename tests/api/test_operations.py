"""Health, readiness and figures."""

from __future__ import annotations

import asyncio
import threading

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from planner_service.api import service as service_module
from planner_service.api.app import create_app
from planner_service.settings import Settings
from tests.serving import chain_request


def samples(text: str, name: str) -> dict[tuple[str, ...], float]:
    """Values of one figure by its labels' values."""
    return {
        tuple(value for label, value in sample.labels.items() if label != "le"): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def test_a_ready_service_says_so(http):
    assert http.get("/healthz").json()["status"] == "ok"
    assert http.get("/readyz").json()["status"] == "ok"


@pytest.mark.parametrize("fails", [False, True])
def test_a_service_is_alive_but_not_ready_until_its_kernels_are_warm(tmp_path, monkeypatch, fails):
    go_on = threading.Event()

    def slow_warm_up() -> None:
        go_on.wait(20)
        if fails:
            raise RuntimeError("no compiler")

    monkeypatch.setattr(service_module, "warm_up", slow_warm_up)

    async def scenario() -> None:
        ready = asyncio.Event()
        app = create_app(Settings(data_dir=tmp_path), on_ready=ready.set)
        transport = httpx.ASGITransport(app=app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://t") as client,
        ):
            assert (await client.get("/healthz")).status_code == 200
            waiting = await client.get("/readyz")
            assert (waiting.status_code, waiting.json()["type"]) == (503, "/problems/not-ready")
            assert waiting.headers["retry-after"] == "1"
            go_on.set()
            if fails:
                await asyncio.sleep(0.1)
                assert "cannot be compiled" in (await client.get("/readyz")).json()["detail"]
            else:
                await asyncio.wait_for(ready.wait(), 20)
                assert (await client.get("/readyz")).status_code == 200

    asyncio.run(scenario())


def test_requests_are_counted_by_route_and_status(http):
    def counted() -> dict[tuple[str, ...], float]:
        return samples(http.get("/metrics").text, "tightfit_request_seconds_count")

    before = counted()
    location = http.post("/v1/plans", json=chain_request(budget_bytes=777)).headers["location"]
    for _ in range(3):
        http.get(location)
    http.post("/v1/plans", json=chain_request(budget_bytes=1))
    http.get("/nothing")
    after = counted()
    more = {labels: after[labels] - before.get(labels, 0) for labels in after}
    assert more["make_plan", "201"] == 1
    assert more["make_plan", "422"] == 1
    assert more["read_plan", "200"] == 3
    assert more["none", "404"] == 1


def test_computations_are_counted_by_how_they_ended(http):
    http.post("/v1/plans", json=chain_request(budget_bytes=778))
    http.post("/v1/plans", json=chain_request(budget_bytes=1))
    text = http.get("/metrics").text
    planned = samples(text, "tightfit_planning_seconds_count")
    assert planned["answered",] > 0
    assert planned["refused",] > 0
    assert samples(text, "tightfit_planning_unfinished")[()] == 0
    assert samples(text, "tightfit_reply_cache_bytes")[()] > 0


def test_a_fault_of_the_service_is_a_problem_that_keeps_its_secret(tmp_path, monkeypatch, caplog):
    def fail(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("planner_service.planning.Planner.plan", fail)

    async def scenario() -> httpx.Response:
        app = create_app(Settings(data_dir=tmp_path))
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://t") as client,
        ):
            return await client.post("/v1/plans", json=chain_request(), headers={"x-request-id": "r-1"})

    answer = asyncio.run(scenario())
    assert (answer.status_code, answer.json()["type"]) == (500, "/problems/internal-error")
    assert "secret" not in answer.text
    assert answer.json()["request_id"] == answer.headers["x-request-id"] == "r-1"
    (logged,) = [record for record in caplog.records if getattr(record, "action", "") == "request_failed"]
    assert logged.request_id == "r-1"
    assert "secret" in str(logged.exc_info[1])
