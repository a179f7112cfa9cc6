"""Jobs, nodes, attempts and events over real HTTP."""

from __future__ import annotations

import json
import secrets
import threading
import time

import httpx
import pytest

from planner_service.api.jobs import event_stream as stream_module
from planner_service.api.jobs.event_stream import event_stream
from planner_service.store import EventsAfter
from tests.api.workers import JOB, NODE, Life
from tests.serving import start_service


@pytest.fixture
def life(service) -> Life:
    """A life whose names no other test uses."""
    return Life(secrets.token_hex(4), service)


def test_a_submitted_job_is_read_at_its_location(http, life):
    answer = http.post("/v1/jobs", json=JOB | {"priority": 0})
    assert answer.status_code == 201
    job = http.get(answer.headers["location"]).json()
    assert job == answer.json()
    assert (job["state"], job["budget"], job["attempt"]) == ("queued", 64 * 2**20, 0)
    assert job["needed_bytes"]["cpu"] > job["budget"]  # the weights are held besides
    assert job["request"]["training"]["optimizer"] == "adam"  # defaults are written out


def test_a_budget_is_bytes_a_share_or_what_is_free(http):
    jobs = {
        budget: http.post("/v1/jobs", json=JOB | {"budget": budget, "priority": 0}).json()
        for budget in ("1MiB", "5%", "free")
    }
    assert [job["budget"] for job in jobs.values()] == [2**20, "5%", "free"]
    needed = {budget: job["needed_bytes"]["cpu"] for budget, job in jobs.items()}
    assert 0 < needed["5%"] < needed["1MiB"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"budget": "0%"}, "budget"),
        ({"budget": -1}, "budget"),
        ({"budget": True}, "budget"),
        ({"budget": "\ud800"}, "budget"),
        ({"priority": 101}, "priority"),
        ({"model": {"kind": "transformer", "hidden_size": 8}}, "model.kind"),
        ({"sequence": {"length": 0, "batch_size": 1}}, "sequence.length"),
        ({"budget": 2**62, "host_budget": 2**62}, "host_budget"),  # together more than a column holds
        ({"engine": "cron"}, "engine"),
        ({"engine": "ray"}, "engine"),  # known, and none of it here
        ({"name": "a\0b"}, "name"),
        ({"name": "\ud800"}, "name"),
        ({"strategy": "luck"}, "strategy"),
        ({"report": {"output": "/etc/passwd"}}, "report"),
    ],
)
def test_a_wrong_job_is_refused_where_it_is_wrong(http, change, field):
    body = json.dumps(JOB | change)
    answer = http.post("/v1/jobs", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["field"] == field


def test_the_same_key_is_the_same_job_and_another_request_is_422(http, life):
    key = {"idempotency-key": life.name}
    first, again = (http.post("/v1/jobs", json=JOB | {"priority": 0}, headers=key) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    other = http.post("/v1/jobs", json=JOB | {"priority": 1}, headers=key)
    assert (other.status_code, other.json()["type"]) == (422, "/problems/idempotency-key-reused")
    assert other.json()["job_id"] == first.json()["id"]


def test_keys_sent_at_once_make_one_job(service, life):
    ids: list[str] = []
    with httpx.Client(base_url=service.url, timeout=60) as http:

        def submit() -> None:
            answer = http.post("/v1/jobs", json=JOB | {"priority": 0}, headers={"idempotency-key": life.name})
            ids.append(answer.json()["id"])

        askers = [threading.Thread(target=submit) for _ in range(8)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
    assert len(ids) == 8
    assert len(set(ids)) == 1


@pytest.mark.parametrize("path", ["", "/logs", "/attempts"])
def test_a_read_that_changes_nothing_is_304_and_another_answer_has_another_tag(http, life, path):
    for step in life.steps[:4]:
        step()
    url = f"/v1/jobs/{life.job_id}{path}"
    tag = http.get(url).headers["etag"]
    assert http.get(url, headers={"if-none-match": tag}).status_code == 304
    life.beat()
    life.log()
    life.report()
    changed = http.get(url, headers={"if-none-match": tag})
    assert (changed.status_code, changed.headers["etag"] != tag) == (200, True)


def test_nodes_are_registered_read_and_listed(http, life):
    assert life.register().status_code == 201
    assert life.register().status_code == 200
    node = http.get(f"/v1/nodes/{life.name}").json()
    assert (node["state"], node["memory_free_bytes"]) == ("ready", NODE["memory_free_bytes"])
    listed = http.get("/v1/nodes", params={"limit": 1000}).json()
    assert node["name"] in [other["name"] for other in listed["nodes"]]
    assert http.get("/v1/nodes/none").json()["type"] == "/problems/unknown-node"
    claim = {"node": "none", "memory_free_bytes": 1}
    assert http.post("/v1/claims", json=claim).json()["type"] == "/problems/unknown-node"


@pytest.mark.parametrize("name", ["two%0Alines", "tab%09", "%20blank", "bell%07"])
def test_a_node_is_called_by_one_printable_line(http, name):
    """It stands in paths and tables"""
    refused = http.put(f"/v1/nodes/{name}", json=NODE)
    assert refused.status_code == 422
    assert "one line of printable characters" in refused.text


def test_a_node_without_memory_is_given_nothing(http, life):
    http.post("/v1/jobs", json=JOB | {"priority": -100})
    life.register()
    answer = http.post("/v1/claims", json={"node": life.name, "memory_free_bytes": 0})
    assert (answer.status_code, answer.content) == (204, b"")


def test_a_worker_without_the_right_token_is_401(http, life):
    for step in life.steps[:4]:
        step()
    for path in ("attempts/1/heartbeat", "attempts/1/logs", "attempts/1/report"):
        body = {"outcome": "succeeded"} if path.endswith("report") else {}
        body = {"first_line": 1, "lines": ["x"]} if path.endswith("logs") else body
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {life.token}"}):
            answer = http.post(f"/v1/jobs/{life.job_id}/{path}", json=body, headers=headers)
            assert (answer.status_code, answer.json()["type"]) == (401, "/problems/invalid-token")
            assert answer.headers["www-authenticate"] == "Bearer"
    life.report()


def test_a_zombie_is_409_and_told_to_stop(life):
    for step in life.steps[:4]:
        step()
    number, token = life.number, life.token
    life.open()  # another worker, with the same launch token: as a scheduler's second copy has it
    successor, life.number, life.token = (life.number, life.token), number, token
    for say in (life.beat, life.log, life.report):
        answer = say()
        assert (answer.status_code, answer.json()["type"]) == (409, "/problems/stale-attempt")
        assert (answer.json()["attempt"], answer.json()["current_attempt"]) == (1, 2)
    life.number, life.token = successor
    assert life.report().json()["state"] == "succeeded"


def test_a_running_job_is_cancelled_by_its_next_heartbeat(http, life):
    for step in life.steps[:4]:
        step()
    asked = http.post(f"/v1/jobs/{life.job_id}/cancel").json()
    assert (asked["state"], asked["cancel_requested"]) == ("running", True)
    assert life.beat().json() == {"cancel": True}
    assert life.report("cancelled").json()["state"] == "cancelled"
    assert http.post(f"/v1/jobs/{life.job_id}/cancel").json()["state"] == "cancelled"


def test_what_has_ended_cannot_be_cancelled(http, life):
    for step in life.steps:
        step()
    answer = http.post(f"/v1/jobs/{life.job_id}/cancel")
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/job-ended")


@pytest.mark.parametrize("path", ["", "/events", "/logs", "/attempts"])
def test_an_unknown_job_is_404(http, path):
    answer = http.get(f"/v1/jobs/none{path}")
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/unknown-job")


def events_of(response: httpx.Response) -> list[dict]:
    """The events of a stream that ended, with their ids and names as fields."""
    events = []
    for block in response.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and line[0] != ":")
        if "data" in fields:
            events.append(json.loads(fields["data"]) | {"id": int(fields["id"]), "event": fields["event"]})
    return events


def test_events_stream_until_the_job_is_over_and_resume_where_the_reader_was(http, life):
    life.submit()
    streamed: list[httpx.Response] = []
    reader = threading.Thread(
        daemon=True, target=lambda: streamed.append(http.get(f"/v1/jobs/{life.job_id}/events"))
    )
    reader.start()
    for step in life.steps[1:]:
        step()
    reader.join(20)
    events = events_of(streamed[0])
    assert streamed[0].headers["content-type"].startswith("text/event-stream")
    assert [event["id"] for event in events] == [event["number"] for event in events] == [1, 2, 3, 4, 5]
    assert [event["event"] for event in events] == ["state", "state", "state", "progress", "state"]
    assert [event["state"] for event in events[-2:]] == ["running", "succeeded"]
    resumed = http.get(f"/v1/jobs/{life.job_id}/events", headers={"last-event-id": "3"})
    assert events_of(resumed) == events[3:]
    over = http.get(f"/v1/jobs/{life.job_id}/events", headers={"last-event-id": "5"})
    assert over.status_code == 204  # which keeps an EventSource from asking again


def test_who_knows_more_events_than_there_are_is_told_of_the_end(http, life):
    """Of a database that was restored: the stream would go on for ever."""
    life.submit()
    path = f"/v1/jobs/{life.job_id}/events"
    with http.stream("GET", path, headers={"last-event-id": "99"}, timeout=20) as stream:
        http.post(f"/v1/jobs/{life.job_id}/cancel")
        assert [line for line in stream.iter_lines() if line.startswith("data:")] == []


def test_a_silent_stream_sends_comments(monkeypatch):
    import asyncio

    monkeypatch.setattr(stream_module, "KEEP_ALIVE_SECONDS", 0.05)

    async def nothing_new(_number: int) -> bool:
        await asyncio.sleep(0.01)
        return False

    async def first_comment() -> bytes:
        silent = EventsAfter([], is_over=False)
        async for chunk in event_stream(lambda _number: silent, 0, lambda: False, nothing_new):
            if chunk.startswith(b":"):
                return chunk
        raise AssertionError("the stream ended")

    assert asyncio.run(asyncio.wait_for(first_comment(), 10)) == b": still here\n\n"


def test_an_open_stream_sees_what_another_process_writes_and_does_not_hold_up_the_end(tmp_path):
    first = start_service(tmp_path)
    second = start_service(tmp_path)  # the same database
    life = Life("two processes", first)
    life.submit()
    seen: list[str] = []

    def read() -> None:
        with httpx.stream("GET", f"{second.url}/v1/jobs/{life.job_id}/events", timeout=60) as response:
            seen.extend(line for line in response.iter_lines() if line.startswith("data: "))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        for step in life.steps[1:4]:
            step()
        time.sleep(1.5)
        stopping = time.monotonic()
        second.terminate()
        assert time.monotonic() - stopping < 8  # open requests would have been given ten seconds
        reader.join(10)
        assert [json.loads(line[6:])["state"] for line in seen] == ["queued", "assigned", "running"]
    finally:
        first.kill()
