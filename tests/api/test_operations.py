"""Health, readiness and figures."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sqlite3
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from planner_service.api import service as service_module
from planner_service.api.app import create_app
from planner_service.api.watching.logs import log_to_stderr
from planner_service.settings import Settings
from tests.api.workers import Life
from tests.serving import Serving, chain_request, endless_request, eventually, start_service


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
    assert [http.head(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]


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
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
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
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            return await client.post("/v1/plans", json=chain_request(), headers={"x-request-id": "r-1"})

    answer = asyncio.run(scenario())
    assert (answer.status_code, answer.json()["type"]) == (500, "/problems/internal-error")
    assert "secret" not in answer.text
    assert answer.json()["request_id"] == answer.headers["x-request-id"] == "r-1"
    assert answer.headers["connection"] == "close"  # as uvicorn does
    (logged,) = [record for record in caplog.records if getattr(record, "action", "") == "request_failed"]
    assert logged.request_id == "r-1"
    assert "secret" in str(logged.exc_info[1])


def test_attempts_jobs_and_measured_peaks_are_in_the_figures(service, http):
    life = Life("figures", service)
    ratios = "tightfit_measured_to_projected_ratio_count"
    reports = "tightfit_attempt_reports_total"
    text = http.get("/metrics").text
    before, reported = (samples(text, name) for name in (ratios, reports))
    for step in life.steps:
        step()
    assert life.report().is_success  # once more, as by a worker that did not hear the answer
    text = http.get("/metrics").text
    assert samples(text, reports)["succeeded",] == reported.get(("succeeded",), 0) + 1
    assert samples(text, "tightfit_jobs")["succeeded",] >= 1
    states = {state for (state,) in samples(text, "tightfit_jobs")}
    assert states == {"queued", "assigned", "running", "succeeded", "failed", "cancelled"}  # empty ones too
    assert samples(text, "tightfit_attempts_lost_total") == {(): 0.0}
    assert samples(text, ratios)[()] == before.get((), 0) + 1
    hits, misses = (samples(text, f"tightfit_reply_cache_{kind}")[()] for kind in ("hits", "misses"))
    assert hits + misses > 0


def test_a_request_is_a_line_of_log_with_who_what_and_how_long(tmp_path):
    service = start_service(tmp_path, TIGHTFIT_LOG_LEVEL="info")
    httpx.get(f"{service.url}/healthz", timeout=60)
    claim = {"node": "idle"}
    assert httpx.post(f"{service.url}/v1/claims/probes", json=claim, timeout=60).status_code == 204
    refused = httpx.get(f"{service.url}/v1/jobs/none", headers={"x-request-id": "r-7"}, timeout=60)
    assert refused.status_code == 404
    service.process.terminate()
    _, said = service.process.communicate(timeout=60)
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    (line,) = [
        line for line in lines if line.get("action") == "request"
    ]  # no read that succeeds, no idle claim
    assert line.pop("seconds") > 0
    assert {name: line[name] for name in ("request_id", "caller", "route", "status", "job", "method")} == {
        "request_id": "r-7",
        "caller": "anybody",
        "route": "read_job",
        "status": 404,
        "job": "none",
        "method": "GET",
    }


def test_a_request_that_outlives_the_shutdown_is_told_so(tmp_path):
    service = start_service(tmp_path, TIGHTFIT_SHUTDOWN_SECONDS="1")
    host, port = service.url.removeprefix("http://").split(":")
    body = json.dumps(endless_request()).encode()
    head = f"POST /v1/plans HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        started = eventually(lambda: "tightfit_planning_unfinished 1.0" in metrics_of(service), 30)
        service.process.terminate()
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    service.kill()
    assert started
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nretry-after: 5\r\n" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["type"] == "/problems/shutting-down"


def metrics_of(service: Serving) -> str:
    """The figures."""
    return httpx.get(f"{service.url}/metrics", timeout=60).text


def test_a_database_of_another_version_is_not_ready(tmp_path):
    service = start_service(tmp_path)
    try:
        with sqlite3.connect(tmp_path / "tightfit.sqlite3") as database:
            database.execute("UPDATE alembic_version SET version_num = '0001'")
        database.close()
        answer = httpx.get(f"{service.url}/readyz", timeout=60)
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/not-ready")
        assert "0001" in answer.json()["detail"]
    finally:
        service.kill()


def test_spans_reach_a_collector_where_one_is_configured(tmp_path):
    received = threading.Event()

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.path == "/v1/traces" and (b"tightfit" in body or body[:2] == b"\x1f\x8b"):
                received.set()
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    collector = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=collector.serve_forever)
    thread.start()
    service = start_service(tmp_path, TIGHTFIT_OTLP_URL=f"http://127.0.0.1:{collector.server_address[1]}")
    try:
        httpx.get(f"{service.url}/v1/jobs", timeout=60)
        assert received.wait(20)
    finally:
        service.kill()
        collector.shutdown()
        thread.join()
        collector.server_close()


def test_what_engines_are_asked_is_no_line_of_log(monkeypatch, capsys):
    """They are asked every two seconds for every job; what our own loggers say is one"""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    level = root.level
    try:
        log_to_stderr("info")
        logging.getLogger("httpx").info("HTTP Request: GET http://127.0.0.1:8265/api/jobs/1")
        logging.getLogger("planner_service").info("ready")
    finally:
        root.setLevel(level)
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["message"] == "ready"
