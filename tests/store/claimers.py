"""Processes that claim jobs until none is left, as fast as they can."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from sqlalchemy import insert, text

from planner_service.jobs import Standing
from planner_service.store import open_database
from planner_service.store.job_records import columns_of
from planner_service.store.job_tables import jobs
from tests.store.desk import Desk, job_request, needs

CLAIM = """
import json, sys, time
from planner_service.store import open_database
from tests.store.desk import Desk

desk = Desk(open_database(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()  # until all are
claimed = []
while (given := desk.claim(sys.argv[2])) is not None:
    claimed.append(given.job.id)
    time.sleep(0.001)  # as a network would: SQLite's lock goes to whoever asks first, again and again
print(json.dumps(claimed))
"""


def fill_queue(url: str, count: int) -> None:
    """Queue `count` jobs in one transaction; PostgreSQL has the statistics that autovacuum would make."""
    standing = Standing(engine="agents", maximum_failures=2, needs=needs(), budget=1000)
    row = {
        **columns_of(standing),
        "name": "one of many",
        "request": job_request().model_dump_json().encode(),
        "submitted_by": "t",
        "queue_rank": 0,
        "event_count": 0,
        "created_at": 0.0,
        "updated_at": 0.0,
    }
    engine = open_database(url)
    with engine.begin() as connection:
        connection.execute(insert(jobs), [{**row, "id": f"{number:020x}"} for number in range(count)])
        if engine.dialect.name == "postgresql":
            connection.execute(text("ANALYZE"))
    engine.dispose()


def claim_all(url: str, processes: int) -> list[list[str]]:
    """The jobs that each of so many processes claimed, all of them claiming at once."""
    engine = open_database(url)
    desk = Desk(engine)
    names = [desk.node(f"node-{number}") for number in range(processes)]
    engine.dispose()
    running = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIM, url, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent.parent.parent,
        )
        for name in names
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [json.loads(process.communicate(timeout=600)[0]) for process in running]
