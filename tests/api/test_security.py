"""Keys, scopes, workers' tokens, limits and the audit log, of a real process on a real socket."""

from __future__ import annotations

import json
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from planner_service.api.access.access import RULES, access_to
from planner_service.cli.openapi import document_text
from planner_service.client import PlannerClient, PlannerRefused
from planner_service.contract.nodes import NodeRegistration
from planner_service.security import Scope
from planner_service.worker_client import WorkerClient
from tests.api.guarded import SCOPES, client_with, make_key, tightfit
from tests.api.workers import JOB
from tests.serving import Serving, chain_request, endless_request, eventually, launch, start_service

COMPARISON = {name: chain_request(budget_bytes=57)[name] for name in ("model", "memory")}
EVERYWHERE = "0.0.0.0"  # noqa: S104 - the very thing that needs keys
NODE = {"device": "cpu", "device_kind": "cpu", "memory_total_bytes": 2**40, "memory_free_bytes": 2**40}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A key of each scope, and the folder that they are for as `folder`."""
    folder = tmp_path_factory.mktemp("guarded")
    return {scope: make_key(folder, f"only-{scope}", scope) for scope in SCOPES} | {"folder": str(folder)}


@pytest.fixture(scope="module")
def guarded(keys: dict[str, str]) -> Iterator[Serving]:
    running = start_service(
        Path(keys["folder"]), TIGHTFIT_AUTHENTICATION="always", TIGHTFIT_PLANNING_PER_CALLER="1"
    )
    yield running
    running.kill()


REQUESTS = {
    "read": ("GET", "/v1/jobs", None),
    "plan": ("POST", "/v1/plans", chain_request()),
    "submit": ("POST", "/v1/jobs", JOB),
    "worker": ("PUT", "/v1/nodes/n1", NODE),
    "admin": ("GET", "/v1/audit", None),
}
DELETIONS = ("/v1/measurements/none", "/v1/profiles/none")


@pytest.mark.parametrize("scope", SCOPES)
def test_a_key_opens_what_its_scope_says_and_nothing_else(guarded, keys, scope):
    with client_with(guarded, keys[scope]) as client:
        for needed, (method, path, body) in REQUESTS.items():
            answer = client.request(method, path, json=body)
            if scope in {needed, "admin"}:
                assert answer.is_success, (needed, answer.text)
            else:
                assert (answer.status_code, answer.json()["type"]) == (403, "/problems/wrong-scope")
                assert answer.json()["needed_scope"] == needed


@pytest.mark.parametrize("scope", SCOPES)
def test_measurements_and_profiles_are_forgotten_by_admins_only(guarded, keys, scope):
    with client_with(guarded, keys[scope]) as client:
        for path in DELETIONS:
            assert client.delete(path).status_code == (404 if scope == "admin" else 403)


@pytest.mark.parametrize("key", [None, "tfk_000000000000_wrong", "wrong", "a.b.c", "tfk__", "ü"])
def test_without_a_key_that_counts_every_route_but_the_open_ones_is_401(guarded, key):
    headers = {} if key is None else {b"authorization": b"Bearer " + key.encode()}
    for method, path, body in REQUESTS.values():
        answer = httpx.request(method, guarded.url + path, json=body, headers=headers, timeout=60)
        assert (answer.status_code, answer.json()["type"]) == (401, "/problems/unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["x-request-id"] == answer.json()["request_id"]
    for path in ("/healthz", "/readyz", "/openapi.json"):
        assert httpx.get(guarded.url + path, timeout=60).is_success


def test_the_secret_of_another_key_does_not_fit(guarded, keys):
    read, admin = keys["read"].split("_", 2), keys["admin"].split("_", 2)
    with client_with(guarded, "_".join([*admin[:2], read[2]])) as client:
        assert client.get("/v1/audit").status_code == 401


def test_a_body_is_not_read_before_the_key_is(guarded):
    """The length alone is sent: the answer comes although no body does."""
    assert answer_to_the_head(guarded, "/v1/plans", 8_000_000).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("token", [None, "made-up"])
@pytest.mark.parametrize("call", ["attempts", "attempts/1/report", "attempts/1/heartbeat", "attempts/1/logs"])
def test_a_workers_body_is_not_read_before_its_token_is(guarded, keys, call, token):
    with client_with(guarded, keys["admin"]) as client:
        job_id = client.post("/v1/jobs", json=JOB | {"engine": "agents"}).json()["id"]
        client.put("/v1/nodes/n2", json=NODE)
        claim = {"node": "n2", "memory_free_bytes": 2**40}
        assert eventually(lambda: client.post("/v1/claims", json=claim).status_code == 204, 30)
        assert client.get(f"/v1/jobs/{job_id}").json()["state"] == "assigned"
    shown = "" if token is None else f"Authorization: Bearer {token}\r\n"
    answer = answer_to_the_head(guarded, f"/v1/jobs/{job_id}/{call}", 8_000_000, shown)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"/problems/invalid-token" in answer


def test_what_asks_for_no_key_takes_small_bodies_only(guarded):
    """A webhook's body is bounded by far less than a key's; an unknown job has no attempts"""
    answer = answer_to_the_head(guarded, "/v1/kubernetes/admission", 2**20 + 1)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"maximum_body_bytes": 1048576' in answer
    assert answer_to_the_head(guarded, "/v1/jobs/none/attempts", 8_000_000).startswith(b"HTTP/1.1 401 ")
    token = "Authorization: Bearer made-up\r\n"
    assert answer_to_the_head(guarded, "/v1/jobs/none/attempts", 8_000_000, token).startswith(
        b"HTTP/1.1 404 "
    )


def answer_to_the_head(service: Serving, path: str, length: int, headers: str = "") -> bytes:
    """What is said to a request whose body does not come."""
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}"
        )
        connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode())
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer


def test_the_database_holds_no_key(keys):
    with closing(sqlite3.connect(f"{keys['folder']}/tightfit.sqlite3")) as database:
        dump = "\n".join(database.iterdump())
    for scope in SCOPES:
        assert keys[scope].split("_", 2)[1] in dump
        assert keys[scope].split("_", 2)[2] not in dump


def test_a_new_key_counts_at_once_and_a_revoked_one_no_longer(guarded, keys):
    """Nor does a stream that it opened tell anything more"""
    key = make_key(guarded.data_dir, "short-lived", "read")
    with client_with(guarded, key) as client, client_with(guarded, keys["admin"]) as admin:
        job = f"/v1/jobs/{admin.post('/v1/jobs', json=JOB).json()['id']}"
        assert eventually(lambda: client.get("/v1/jobs").is_success, 5)
        with client.stream("GET", f"{job}/events") as events:
            assert events.is_success
            tightfit("keys", "revoke", key.split("_")[1], "--data-dir", str(guarded.data_dir))
            assert eventually(lambda: client.get("/v1/jobs").status_code == 401, 10)
            assert admin.post(f"{job}/cancel").json()["state"] == "cancelled"
            told = events.read().decode()
        assert '"state":"queued"' in told
        assert '"state":"cancelled"' not in told
        assert '"state":"cancelled"' in admin.get(f"{job}/events").text
    listed = tightfit("keys", "list", "--data-dir", str(guarded.data_dir))
    assert "short-lived" in listed
    assert key.split("_", 2)[2] not in listed


def test_an_attempts_token_plans_for_its_job_and_opens_nothing_else(guarded, keys):
    with client_with(guarded, keys["submit"]) as client:
        job_id = client.post("/v1/jobs", json={**JOB, "engine": "agents"}).json()["id"]
    with client_with(guarded, keys["worker"]) as client:
        claim = {"node": "n1", "memory_free_bytes": 2**40, "engines": ["agents"]}
        client.put("/v1/nodes/n1", json=NODE)
        while (claimed := client.post("/v1/claims", json=claim)).json()["job"]["id"] != job_id:
            pass
    with client_with(guarded, claimed.json()["launch_token"]) as launched:
        assert launched.post("/v1/plans", json=chain_request()).status_code == 401
        attempt = launched.post(f"/v1/jobs/{job_id}/attempts", json={}).json()
    with PlannerClient(guarded.url, api_key=keys["admin"]) as admin:
        assert [entry.action for entry in admin.audit(caller=f"job:{job_id}").entries] == ["open_attempt"]
    with client_with(guarded, attempt["token"]) as worker:
        made = worker.post("/v1/plans", json=chain_request(budget_bytes=71))
        assert made.is_success
        assert worker.get(made.headers["location"]).is_success
        assert worker.post("/v1/claims", json=claim).status_code == 403
        assert worker.get("/v1/jobs").status_code == 403
        assert worker.post("/v1/jobs", json=JOB).status_code == 403
        report = {"outcome": "error", "detail": "enough"}
        assert worker.post(f"/v1/jobs/{job_id}/attempts/1/report", json=report).is_success
        assert worker.post("/v1/plans", json=chain_request()).status_code == 401


def test_one_caller_cannot_take_all_of_the_planning(guarded, keys):
    host, port = guarded.url.removeprefix("http://").split(":")
    body = json.dumps(endless_request()).encode()
    head = (
        f"POST /v1/plans HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n"
        f"Authorization: Bearer {keys['plan']}\r\nContent-Type: application/json\r\n\r\n"
    )
    with client_with(guarded, keys["plan"]) as client, socket.create_connection((host, int(port))) as slow:
        slow.sendall(head.encode() + body)

        with client_with(guarded, keys["read"]) as reader:
            assert eventually(lambda: "tightfit_planning_unfinished 1.0" in reader.get("/metrics").text, 60)
        answer = client.post("/v1/comparisons", json=COMPARISON)
    assert answer.status_code == 429
    assert answer.json()["type"] == "/problems/too-much-planning"
    assert int(answer.headers["retry-after"]) > 0


def test_a_caller_that_asks_too_often_is_429_and_others_are_not(tmp_path):
    keys = [make_key(tmp_path, name, "read") for name in ("eager", "calm")]
    service = start_service(tmp_path, TIGHTFIT_AUTHENTICATION="always", TIGHTFIT_REQUESTS_PER_SECOND="0.5")
    try:
        with client_with(service, keys[0]) as eager, client_with(service, keys[1]) as calm:
            answers = [eager.get("/v1/jobs") for _ in range(20)]
            refused = [answer for answer in answers if answer.status_code == 429]
            assert len(refused) > 10  # one at once, then one every two seconds
            assert refused[0].json()["type"] == "/problems/too-many-requests"
            assert int(refused[0].headers["retry-after"]) >= 1
            assert calm.get("/v1/jobs").is_success
    finally:
        service.kill()


def test_the_audit_log_says_who_did_what_page_by_page(guarded, keys):
    with PlannerClient(guarded.url, api_key=keys["submit"]) as submitter:
        job = submitter.submit_job(JOB)
        submitter.cancel_job(job.id)
        with pytest.raises(PlannerRefused) as refused:
            submitter.audit()
        assert refused.value.status == 403
    with PlannerClient(guarded.url, api_key=keys["admin"]) as admin:
        first = admin.audit(limit=2, caller="only-submit")
        rest = admin.audit(limit=1000, caller="only-submit", cursor=first.next_cursor)
        made = admin.audit(action="keys_create", limit=1000).entries
    entries = [*first.entries, *rest.entries]
    assert [entry.number for entry in entries] == sorted((entry.number for entry in entries), reverse=True)
    done = {(entry.action, entry.subject, entry.status) for entry in entries}
    assert {
        ("submit_job", "/v1/jobs", 201),
        ("cancel_job", f"/v1/jobs/{job.id}/cancel", 200),
        ("GET", "/v1/audit", 403),
    } <= done
    assert {"only-read", "only-admin"} <= {entry.subject.split()[1].rstrip(":") for entry in made}
    assert all(entry.caller.startswith("shell:") for entry in made)


def test_jobs_carry_the_name_of_the_key_and_idempotency_keys_belong_to_it(guarded, keys):
    other = make_key(guarded.data_dir, "somebody-else", "submit")
    with client_with(guarded, keys["submit"]) as one, client_with(guarded, other) as two:
        sent = {"idempotency-key": "the same"}
        first, again = (one.post("/v1/jobs", json=JOB, headers=sent).json()["id"] for _ in range(2))
        assert first == again
        assert eventually(lambda: two.get("/v1/jobs").status_code == 403, 5)
        assert two.post("/v1/jobs", json=JOB, headers=sent).json()["id"] != first


def test_another_address_without_keys_is_refused_at_start(tmp_path):
    process = launch("--host", EVERYWHERE, "--port", "0", "--data-dir", str(tmp_path))
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 2
    assert complaint.count("\n") == 1
    assert "tightfit keys create" in complaint


def test_another_address_asks_for_keys(tmp_path):
    key = make_key(tmp_path, "team", "read")
    service = start_service(tmp_path, "--host", EVERYWHERE)
    try:
        url = service.url.replace(EVERYWHERE, "127.0.0.1")
        assert httpx.get(f"{url}/v1/jobs", timeout=60).status_code == 401
        assert httpx.get(f"{url}/v1/jobs", headers={"authorization": f"Bearer {key}"}).is_success
    finally:
        service.kill()


@pytest.mark.parametrize(
    "named",
    [
        {"host": "attacker.example"},
        {"host": "127.0.0.1.attacker.example:8080"},
        {"host": "[::1"},
        {"origin": "https://attacker.example"},
        {"origin": "null"},
    ],
)
def test_a_page_in_a_browser_on_this_machine_is_told_and_changes_nothing(http, named):
    """By a name that came to mean 127.0.0.1, or by a POST that a browser asks nobody about"""
    for method, path in (("GET", "/v1/jobs"), ("POST", "/v1/jobs/none/cancel")):
        refused = http.request(method, path, headers=named)
        assert (refused.status_code, refused.json()["type"]) == (421, "/problems/another-name")


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1", "127.1.2.3:1", "[::1]:8080", "LocalHost"])
def test_this_machine_is_called_by_any_name_of_its_own(http, host):
    assert http.get("/v1/jobs", headers={"host": host}).is_success
    assert http.get("/v1/jobs", headers={"origin": f"http://{host}"}).is_success


def test_who_shows_a_key_may_call_the_service_as_they_like(guarded, keys):
    with client_with(guarded, keys["read"]) as http:
        assert http.get("/v1/jobs", headers={"host": "planner.example", "origin": "https://x"}).is_success


def test_every_operation_has_a_rule_and_says_so_in_the_contract():
    document = json.loads(document_text())
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            access = access_to(method.upper(), path)
            scopes = [scope for need in operation.get("security", []) for scope in need.get("key", [])]
            assert scopes == ([] if access.scope is None else [access.scope]), (method, path)
            named = any(
                methods == method.upper() and pattern.fullmatch(path) for methods, pattern, _ in RULES
            )
            assert named, (method, path)


def test_what_has_no_rule_is_for_admins():
    assert access_to("DELETE", "/v1/jobs/1").scope == Scope.ADMIN


def test_the_workers_client_sends_its_key(guarded, keys):
    with WorkerClient(guarded.url, token=keys["worker"]) as worker:
        assert worker.register_node("n2", NodeRegistration.model_validate(NODE)).name == "n2"
