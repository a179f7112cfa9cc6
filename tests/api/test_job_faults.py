"""Faults with real processes and real signals: nothing acknowledged is lost, nothing is accepted twice.

One kill interrupts eight jobs at once, each between another pair of steps of its life; a second one
comes in the middle of many submissions. Workers that die or stop are tested with the worker's code.
"""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.api.workers import HTTP, JOB, Life
from tests.databases import PostgresServer
from tests.serving import Serving, eventually, start_service

IMPATIENT = {
    "TIGHTFIT_HEARTBEAT_SECONDS": "0.2",
    "TIGHTFIT_LOST_AFTER_SECONDS": "1.0",
    "TIGHTFIT_LEASE_SECONDS": "1.0",
}


@pytest.fixture
def start(database_url: str, tmp_path: Path) -> Iterator[object]:
    """Starts services on one database, one after the other; the last one is killed at the end."""
    running: list[Serving] = []

    def start_another(**environ: str) -> Serving:
        running.append(start_service(tmp_path, TIGHTFIT_DATABASE_URL=database_url, **environ))
        return running[-1]

    yield start_another
    if running and running[-1].process.poll() is None:
        running[-1].kill()


def test_a_service_killed_between_any_two_steps_of_a_job_loses_nothing_and_accepts_nothing_twice(start):
    first = start()
    lives = interrupted_lives(first)
    first.kill()

    second = start()
    for life in lives:
        life.service = second
        finish(life)
    acknowledged = submit_until_killed(second)

    third = start(**IMPATIENT)
    for life in lives:
        life.service = third
        require_one_result(life)
    require_every_submission_once(third, acknowledged)
    silent_attempts_go_back_and_come_back(third)


def interrupted_lives(service: Serving) -> list[Life]:
    """Eight lives; the one called `life-k` has taken its first k steps, each acknowledged."""
    lives = [Life(f"life-{steps}", service) for steps in range(8)]
    for steps, life in reversed(list(enumerate(lives))):  # whoever claims finds its own job alone
        for step in life.steps[:steps]:
            assert step().is_success
    return lives[::-1]


def finish(life: Life) -> None:
    """Take the last step again, as if its answer had been lost, then all that are left."""
    done = int(life.name.removeprefix("life-"))
    if life.job_id:
        assert life.read()["name"] == life.name
    if done and life.steps[done - 1] != life.claim:  # a lost claim is not asked for again: its lease ends
        again = life.steps[done - 1]()
        assert again.is_success, again.text
        assert again.status_code != 201 or life.steps[done - 1] == life.open  # nothing was made anew
    for step in life.steps[done:]:
        answer = step()
        assert answer.is_success, (step, answer.text)
    assert life.read()["state"] == "succeeded"


def require_one_result(life: Life) -> None:
    """The job has succeeded once, and everything that was said of it is still there."""
    job, attempts = life.read(), life.read("attempts")["attempts"]
    assert (job["state"], job["iteration"], job["failures"]) == ("succeeded", 3, 0)
    assert [attempt["outcome"] for attempt in attempts if attempt["outcome"]] == ["succeeded"]
    assert [line["text"] for line in life.read("logs")["lines"] if line["attempt"] == life.number] == [
        "one",
        "two",
    ]
    measured = HTTP.get(f"{life.service.url}/v1/measurements/{job['measurement_id']}")
    assert measured.json()["measured_peak_bytes"] == 890
    assert life.report().json() == job  # sent once more, and answered with what is known
    assert life.report("error").json()["type"] == "/problems/attempt-ended"


def submit_until_killed(service: Serving) -> dict[str, str | None]:
    """Kill the service while four clients submit; the job's id for every key, None where none came."""
    acknowledged: dict[str, str | None] = {}

    def submit(client: int) -> None:
        with httpx.Client(base_url=service.url, timeout=30) as http:
            for number in range(10_000):
                key = f"{client}-{number}"
                acknowledged[key] = None
                try:
                    answer = http.post("/v1/jobs", json=JOB, headers={"idempotency-key": key})
                except httpx.HTTPError:
                    return
                acknowledged[key] = answer.json()["id"]

    clients = [threading.Thread(target=submit, args=(client,)) for client in range(4)]
    for client in clients:
        client.start()
    assert eventually(lambda: sum(id_ is not None for id_ in acknowledged.copy().values()) > 20, 30)
    service.kill()
    for client in clients:
        client.join(30)
    return acknowledged


def require_every_submission_once(service: Serving, acknowledged: dict[str, str | None]) -> None:
    """Every key, sent again, names one job: the acknowledged one where there was one."""
    found = set()
    with httpx.Client(base_url=service.url, timeout=30) as http:
        for key, job_id in acknowledged.items():
            again = http.post("/v1/jobs", json=JOB, headers={"idempotency-key": key}).json()["id"]
            assert job_id in (None, again)
            found.add(again)
            http.post(f"/v1/jobs/{again}/cancel")
        kept = http.get("/v1/jobs", params={"limit": 1000, "state": "cancelled"}).json()["jobs"]
    assert len(found) == len(acknowledged)
    assert {job["id"] for job in kept} == found


def silent_attempts_go_back_and_come_back(service: Serving) -> None:
    """A worker that is silent past its lease is late but valid, then fenced by its successor."""
    late = Life("late", service)
    for step in late.steps[:5]:
        assert step().is_success
    assert eventually(lambda: late.read()["state"] == "queued", 10)
    assert late.read()["reason"] == "node_lost"
    assert late.beat().json() == {"cancel": False}
    assert late.read()["state"] == "running"
    assert eventually(lambda: late.read()["state"] == "queued", 10)
    successor = Life("successor", service)
    successor.register()
    successor.claim()
    successor.job_id = late.job_id
    assert successor.open().json()["number"] == 2
    for say in (late.beat, late.log, late.report):
        assert (say().status_code, say().json()["type"]) == (409, "/problems/stale-attempt")
    assert successor.report().json()["state"] == "succeeded"
    assert [attempt["outcome"] for attempt in late.read("attempts")["attempts"]] == [None, "succeeded"]


def test_a_full_disk_refuses_and_keeps_what_was_acknowledged(service: Serving):
    """SQLite: the process may not let any file grow, as on a full disk."""
    life = Life("full disk", service)
    for step in life.steps[:4]:
        assert step().is_success
    with no_more_space(service):
        refused = life.beat()
        assert (refused.status_code, refused.json()["type"]) == (503, "/problems/storage-unavailable")
        assert int(refused.headers["retry-after"]) > 0
        assert Life("another", service).submit().status_code == 503
        assert life.read()["state"] == "running"  # reading goes on
    assert life.beat().is_success
    assert life.report().json()["state"] == "succeeded"


@contextmanager
def no_more_space(service: Serving) -> Iterator[None]:
    """No file of the service's process can grow."""
    before = resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE)
    smallest = min(path.stat().st_size for path in service.data_dir.glob("*.sqlite3*"))
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (min(smallest, 4096), before[1]))
    try:
        yield
    finally:
        resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, before)


def test_a_database_that_goes_and_comes_back_loses_nothing(own_postgres: PostgresServer, tmp_path: Path):
    url = own_postgres.create_database()
    service = start_service(
        tmp_path, TIGHTFIT_DATABASE_URL=url, **IMPATIENT | {"TIGHTFIT_LEASE_SECONDS": "60"}
    )
    try:
        life = Life("patient", service)
        for step in life.steps[:5]:
            assert step().is_success
        own_postgres.stop("immediate")
        refused = life.beat()
        assert (refused.status_code, refused.json()["type"]) == (503, "/problems/storage-unavailable")
        assert HTTP.get(f"{service.url}/healthz").is_success
        assert HTTP.get(f"{service.url}/readyz").status_code == 503
        time.sleep(1.5)  # longer than the lease: nobody could be heard
        own_postgres.start()
        assert eventually(lambda: life.beat().is_success, 20)
        assert life.read()["attempt"] == 1
        if own_postgres.has_own_disk:
            fill_the_disk(own_postgres, life)
        for step in life.steps[5:]:
            assert eventually(lambda step=step: step().is_success, 20)
        require_one_result(life)
    finally:
        service.kill()
    if not own_postgres.has_own_disk:
        pytest.skip("the outage is tested; a full disk needs leave to mount a small one")


def fill_the_disk(server: PostgresServer, life: Life) -> None:
    """Submissions are refused while there is no room, and taken when there is again."""
    filler = server.folder / "filler"
    fill(filler)
    statuses = []
    while 503 not in statuses and len(statuses) < 400:  # free space inside its files is used up first
        statuses.append(Life(f"full-{len(statuses)}", life.service).submit().status_code)
    filler.unlink()
    assert set(statuses) <= {201, 503}
    assert statuses[-1] == 503
    assert eventually(lambda: Life("room again", life.service).submit().is_success, 20)


def fill(path: Path) -> None:
    """Write to `path` until the disk is full."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(2**16))
        except OSError:
            return
