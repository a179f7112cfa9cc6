"""From kill -9 to ready with 100,000 stored plans and 100,000 jobs, on SQLite and PostgreSQL.

    python -m benchmarks.service.restart [--stored 100000]

The clock runs from the signal to the line that the service prints when it is ready: the process's own
start, the database's recovery, and loading the compiled kernels. A service without anything stored is
started on the same machine beside it, so that what the data costs can be told from what starting costs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import httpx
from sqlalchemy import insert

from benchmarks.machine import RESULTS, description
from planner_service.store import open_database
from planner_service.store.tables import plans
from tests.api.workers import JOB
from tests.databases import missing_for_postgres, running_postgres
from tests.serving import Serving, chain_request, start_service
from tests.store.claimers import fill_queue

REPEATS = 3


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


def restarts(folder: Path, **environ: str) -> list[float]:
    """Seconds from SIGKILL to ready, several times; what was acknowledged before is there after."""
    seconds = []
    service = start_service(folder, **environ)
    for number in range(REPEATS):
        made = httpx.post(f"{service.url}/v1/plans", json=chain_request(budget_bytes=60 + number), timeout=60)
        job = httpx.post(f"{service.url}/v1/jobs", json=JOB, timeout=60)
        started = time.perf_counter()
        service.kill()
        service = start_service(folder, **environ)
        seconds.append(time.perf_counter() - started)
        require_kept(service, made, job)
    service.kill()
    return [round(one, 2) for one in seconds]


def require_kept(service: Serving, made: httpx.Response, job: httpx.Response) -> None:
    """The plan and the job that were acknowledged before the kill."""
    assert httpx.get(service.url + made.headers["location"], timeout=60).content == made.content
    assert httpx.get(service.url + job.headers["location"], timeout=60).json() == job.json()


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
