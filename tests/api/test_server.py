"""The service as a process: what it keeps, how it stops, what it refuses to start with."""

from __future__ import annotations

import gc
import json
import resource
import signal
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from planner_service.cli import main
from tests.serving import (
    STOP_SECONDS,
    Serving,
    chain_request,
    endless_request,
    eventually,
    launch,
    start_service,
)

IDLE_CORES = 0.04
"""A process that computes uses a whole core where it gets one; on a crowded machine, a tenth of it."""


@pytest.fixture(scope="module")
def own_service(tmp_path_factory: pytest.TempPathFactory):
    """A service of these tests alone: one planning thread, one place in the queue, left idle."""
    running = start_service(
        tmp_path_factory.mktemp("own"), TIGHTFIT_PLANNING_THREADS="1", TIGHTFIT_QUEUE_LENGTH="1"
    )
    yield running
    running.kill()


def cores_used(service: Serving, seconds: float = 0.5) -> float:
    """Cores that the process keeps busy."""
    before = service.cpu_seconds()
    time.sleep(seconds)
    return (service.cpu_seconds() - before) / seconds


def unfinished(service: Serving) -> int:
    """Computations that run or wait in the service, as it says itself."""
    text = httpx.get(f"{service.url}/metrics", timeout=60).text
    (line,) = [line for line in text.splitlines() if line.startswith("tightfit_planning_unfinished ")]
    return int(float(line.split()[1]))


def is_idle(service: Serving) -> bool:
    """Whether nothing is being computed, by the service's word and by the processor time it takes."""
    return unfinished(service) == 0 and cores_used(service) < IDLE_CORES


def ask_and_leave(service: Serving, request: dict, path: str = "/v1/plans") -> socket.socket:
    """Send a request and do not wait for the answer."""
    host, port = service.url.removeprefix("http://").split(":")
    body = json.dumps(request).encode()
    connection = socket.create_connection((host, int(port)))
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
    return connection


def test_acknowledged_plans_and_measurements_survive_kill_9(tmp_path):
    report = {
        "job": "killed",
        "budget_bytes": 10,
        "projected_peak_bytes": 9,
        "measured_peak_bytes": 8,
        "seconds_per_iteration": 1,
        "iterations": 1,
        "torch": "2",
        "device": "cpu",
    }
    first = start_service(tmp_path)
    plans = [
        httpx.post(f"{first.url}/v1/plans", json=chain_request(budget_bytes=50 + extra)) for extra in range(5)
    ]
    measured = httpx.post(f"{first.url}/v1/measurements", json=report)
    first.kill()
    second = start_service(tmp_path)
    try:
        for plan in plans:
            read = httpx.get(second.url + plan.headers["location"])
            assert (read.status_code, read.content) == (200, plan.content)
        assert httpx.post(f"{second.url}/v1/plans", json=chain_request(budget_bytes=50)).status_code == 200
        assert httpx.get(second.url + measured.headers["location"]).json() == measured.json()
    finally:
        second.kill()


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/plans", {"model", "memory", "strategy"}),
        ("/v1/comparisons", {"model", "memory"}),
        ("/v1/frontiers", {"model"}),
    ],
)
def test_a_client_that_hangs_up_does_not_keep_a_core_busy(own_service, path, fields):
    request = {name: value for name, value in endless_request().items() if name in fields}
    with ask_and_leave(own_service, request, path):
        assert eventually(lambda: unfinished(own_service) == 1, 20)
    assert eventually(lambda: is_idle(own_service), 20)


def test_the_service_answers_others_while_it_plans(own_service):
    with ask_and_leave(own_service, endless_request()):
        assert eventually(lambda: unfinished(own_service) == 1, 20)
        assert httpx.get(f"{own_service.url}/readyz", timeout=60).is_success
        assert unfinished(own_service) == 1
    assert eventually(lambda: is_idle(own_service), 20)


def test_one_client_of_two_that_hangs_up_does_not_stop_the_others_plan(own_service):
    request = endless_request()
    with ask_and_leave(own_service, request):
        with ask_and_leave(own_service, request):
            assert eventually(lambda: unfinished(own_service) == 1, 20)
        time.sleep(0.3)
        assert unfinished(own_service) == 1
    assert eventually(lambda: is_idle(own_service), 20)


def test_a_full_queue_is_503_with_retry_after(own_service):
    with ask_and_leave(own_service, endless_request(1)), ask_and_leave(own_service, endless_request(2)):
        assert eventually(lambda: unfinished(own_service) == 2, 20)
        answer = httpx.post(f"{own_service.url}/v1/plans", json=chain_request(), timeout=30)
        assert answer.status_code == 503
        assert answer.json()["type"] == "/problems/queue-full"
        assert int(answer.headers["retry-after"]) > 0
    assert eventually(lambda: is_idle(own_service), 20)


def test_a_plan_stopped_at_the_time_limit_is_503_with_retry_after(tmp_path):
    service = start_service(tmp_path, TIGHTFIT_PLANNING_TIMEOUT_SECONDS="0.2")
    answer = httpx.post(f"{service.url}/v1/plans", json=endless_request(), timeout=30)
    service.kill()
    assert answer.status_code == 503
    assert answer.json()["type"] == "/problems/planning-timeout"
    assert answer.json()["limit_seconds"] == 0.2
    assert int(answer.headers["retry-after"]) > 0


def test_sigterm_ends_the_service_though_a_plan_is_being_computed(tmp_path):
    service = start_service(tmp_path, TIGHTFIT_SHUTDOWN_SECONDS="1")
    with ask_and_leave(service, endless_request()):
        has_started = eventually(lambda: unfinished(service) == 1, 20)
        assert service.terminate() == -signal.SIGTERM
    assert has_started


def test_a_port_in_use_is_one_line_and_status_2(service, tmp_path):
    port = service.url.rpartition(":")[2]
    process = launch("--port", port, "--data-dir", str(tmp_path))
    _, complaint = process.communicate(timeout=STOP_SECONDS)
    assert process.returncode == 2
    assert complaint.count("\n") == 1
    assert f"port {port}: Address already in use" in complaint


HOLES = Path(__file__).parents[2] / "examples" / "jobs" / "small.json"
"""A file of holes that is none."""
CERTIFICATE = {"TIGHTFIT_TLS_CERTIFICATE_FILE": __file__, "TIGHTFIT_TLS_KEY_FILE": "absent.pem"}


@pytest.mark.parametrize(
    ("arguments", "environ", "complaint"),
    [
        (("--port", "70000"), {}, "must lie in 0..65535"),
        ((), {"TIGHTFIT_PLANNING_THREADS": "none"}, "TIGHTFIT_PLANNING_THREADS='none'"),
        ((), {"TIGHTFIT_DATABASE_URL": "nonsense"}, "cannot open the database nonsense"),
        ((), {"TIGHTFIT_DATABASE_URL": "mysql://h/n"}, "give postgresql+psycopg://USER:PASSWORD@HOST/NAME"),
        ((), {"TIGHTFIT_SLURM_OPTIONS": "--comment='a"}, "TIGHTFIT_SLURM_OPTIONS=--comment='a is no line"),
        ((), {"TIGHTFIT_RAY_URL": "head:8265"}, "TIGHTFIT_RAY_URL=head:8265 must be a URL"),
        ((), {"TIGHTFIT_KUBERNETES_CLAIM": "DRA"}, "TIGHTFIT_KUBERNETES_CLAIM=DRA must be dra, or empty"),
        ((), {"TIGHTFIT_HOLES_FILE": str(HOLES)}, "small.json: "),
        ((), {"TIGHTFIT_OTLP_URL": "http://127.0.0.1:1"}, "pip install 'tightfit[telemetry]'"),
        ((), CERTIFICATE, "_KEY_FILE=absent.pem cannot be read: No such file"),
        ((), CERTIFICATE | {"TIGHTFIT_TLS_KEY_FILE": __file__}, "are no certificate and its unencrypted key"),
        (("--host", "203.0.113.1", "--port", "0"), {}, "tightfit keys create NAME --scope admin"),
        (("--data-dir", __file__), {}, "cannot open the database"),
    ],
)
def test_what_it_cannot_start_with_is_one_line_and_status_2(
    tmp_path, monkeypatch, capsys, arguments, environ, complaint
):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    assert main(["serve", "--data-dir", str(tmp_path), *arguments]) == 2
    assert gc.isenabled()  # it rests while a service loads
    said = capsys.readouterr().err
    assert said.startswith("tightfit serve: ")
    assert said.count("\n") == 1
    assert complaint in said


def test_a_database_that_does_not_answer_yet_is_one_line_and_a_status_to_start_again_with(
    tmp_path, monkeypatch, capsys
):
    """After a power cut the database may be the last to come up"""
    monkeypatch.setenv("TIGHTFIT_DATABASE_URL", "postgresql+psycopg://me@127.0.0.1:1/name")
    assert main(["serve", "--data-dir", str(tmp_path), "--port", "0"]) == 75
    assert capsys.readouterr().err.count("\n") == 1
    unit = (Path(__file__).parents[2] / "deploy" / "systemd" / "tightfit.service").read_text()
    assert {"Restart=on-failure", "RestartPreventExitStatus=2", "StartLimitIntervalSec=0"} <= {
        *unit.splitlines()
    }


def test_more_connections_than_a_system_begins_with_keep_nobody_out(tmp_path):
    """Watchers keep theirs open; whoever comes then is answered"""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    try:
        service = start_service(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    address = urlsplit(service.url)
    with ExitStack() as kept:
        kept.callback(service.kill)
        for _ in range(150):
            kept.enter_context(socket.create_connection((address.hostname, address.port)))
        assert httpx.get(f"{service.url}/healthz", timeout=20).is_success
