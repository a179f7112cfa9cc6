"""From kill -9 to ready with 100,000 stored plans and 100,000 jobs, on SQLite and PostgreSQL.

    python -m benchmarks.service.restart [--stored 100000]

The clock runs from the signal to the line that the service prints when it is ready: the process's own
start, the database's recovery, and loading the compiled kernels. A service without anything stored is
started on the same machine beside it, so that what the data costs can be told from what starting costs.

After every start everything that was acknowledged since the first one is asked for again: plans byte for
byte, jobs as they stood, attempts by a heartbeat with the token that they had.
"""

from __future__ import annotations

import argparse
import itertools
import json
import secrets
import sys
import tempfile
import time
from pathlib import Path

import httpx
from sqlalchemy import insert

from benchmarks.machine import RESULTS, description
from planner_service.store import open_database
from planner_service.store.tables import plans
from tests.api.workers import JOB, Life
from tests.databases import missing_for_postgres, running_postgres
from tests.serving import Serving, chain_request, start_service
from tests.store.claimers import fill_queue

REPEATS = 3
EACH = 100
"""Plans, and queued jobs, that are acknowledged before each kill."""
LIVE_STEPS = (3, 3, 4, 5, 5, 6)
"""Steps of a job's life that some have taken besides: 3, it is assigned; 4, an attempt is open; 5 and 6, it
has said something."""
OPENED = 3


def fill(url: str, stored: int) -> None:
    """Store so many plans, of the size of a small one, and as many queued jobs."""
    engine = open_database(url)
    rows = [
        {"id": f"{number:032x}", "request": b"{}", "reply": b"x" * 900, "created_at": 0.0}
        for number in range(stored)
    ]
    with engine.begin() as connection:
        connection.execute(insert(plans), rows)
    engine.dispose()
    fill_queue(url, stored)


class Acknowledged:
    """What a service has confirmed, over all of its restarts."""

    def __init__(self) -> None:
        self._answers: list[httpx.Response] = []
        self._lives: list[Life] = []
        self._jobs = 0

    def add(self, service: Serving, number: int) -> None:
        """More plans and jobs: some queued, some assigned, some running, all of them confirmed."""
        for steps in LIVE_STEPS:
            life = Life(f"restart-{secrets.token_hex(4)}", service)
            for step in life.steps[:steps]:
                assert step().is_success
            self._lives.append(life)
        with httpx.Client(base_url=service.url, timeout=60) as client:
            for each in range(EACH):
                plan = chain_request(budget_bytes=60 + number, count=100 + each)
                self._answers.append(client.post("/v1/plans", json=plan))
                self._answers.append(client.post("/v1/jobs", json=JOB | {"priority": -1}))
            assert all(answer.is_success for answer in self._answers)
            self._jobs = jobs_of(client)

    def require_kept(self, service: Serving) -> None:
        """All of it is there as it was, nothing more, and attempts go on with their tokens."""
        with httpx.Client(base_url=service.url, timeout=60) as client:
            assert jobs_of(client) == self._jobs
            for answer in self._answers:
                kept = client.get(answer.headers["location"])
                is_plan = answer.headers["location"].startswith("/v1/plans/")
                assert kept.content == answer.content if is_plan else stands(kept) == stands(answer)
        for life, steps in zip(self._lives, itertools.cycle(LIVE_STEPS), strict=False):
            life.service = service
            job = life.read()
            assert (job["name"], job["attempt"]) == (life.name, int(steps > OPENED))
            assert job["state"] == ("running" if steps > OPENED else "assigned")
            if steps > OPENED:
                assert life.beat().json() == {"cancel": False}


def jobs_of(client: httpx.Client) -> int:
    """How many jobs there are in all."""
    lines = client.get("/metrics").text.splitlines()
    return round(sum(float(line.split()[-1]) for line in lines if line.startswith("tightfit_jobs{")))


def stands(answer: httpx.Response) -> dict[str, object]:
    """A job without the reason why it waits, which nodes that come and go decide."""
    return {name: value for name, value in answer.json().items() if name != "detail"}


def restarts(folder: Path, **environ: str) -> list[float]:
    """Seconds from SIGKILL to ready, several times; what was acknowledged before is there after."""
    seconds, acknowledged = [], Acknowledged()
    environ = environ | {"TIGHTFIT_LEASE_SECONDS": "3600", "TIGHTFIT_LOST_AFTER_SECONDS": "3600"}
    service = start_service(folder, **environ)
    for number in range(REPEATS):
        acknowledged.add(service, number)
        started = time.perf_counter()
        service.kill()
        service = start_service(folder, **environ)
        seconds.append(time.perf_counter() - started)
        acknowledged.require_kept(service)
    service.kill()
    return [round(one, 2) for one in seconds]


def measure(stored: int) -> dict[str, list[float]]:
    """Every row."""
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        rows["sqlite, nothing stored"] = restarts(Path(folder))
        fill(f"sqlite:///{Path(folder) / 'tightfit.sqlite3'}", stored)
        rows[f"sqlite, {stored} plans and jobs"] = restarts(Path(folder))
    if reason := missing_for_postgres():
        print(f"PostgreSQL {reason}", file=sys.stderr)
        return rows
    with running_postgres() as server, tempfile.TemporaryDirectory() as folder:
        url = server.create_database()
        fill(url, stored)
        rows[f"postgresql, {stored} plans and jobs"] = restarts(Path(folder), TIGHTFIT_DATABASE_URL=url)
    return rows


def main() -> int:
    """Measure, print, keep the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service.restart", description=__doc__)
    parser.add_argument("--stored", type=int, default=100_000)
    rows = measure(parser.parse_args().stored)
    for name, seconds in rows.items():
        print(f"{name:40}{'  '.join(f'{one:.2f} s' for one in seconds)}")
    result = {"machine": description("sqlalchemy", "psycopg", "uvicorn"), "kill_to_ready_seconds": rows}
    (RESULTS / "service-restart.json").write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
