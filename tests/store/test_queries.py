"""The queue's queries use its indexes, on both databases: what a claim costs does not grow with the queue."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Engine, event

from tests.store.claimers import fill_queue
from tests.store.desk import Desk

JOBS = 3000


@pytest.fixture
def busy_desk(url: str, engine: Engine) -> Desk:
    """A long queue and a running job."""
    fill_queue(url, JOBS)
    desk = Desk(engine)
    desk.node()
    desk.take()
    return desk


def plans_of(engine: Engine, ask: Callable[[], object]) -> list[str]:
    """How the database carries out every SELECT on jobs that `ask` makes."""
    seen = []

    def note(_connection, _cursor, statement, parameters, _context, _many) -> None:
        if statement.startswith("SELECT") and "FROM jobs" in statement:
            seen.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    ask()
    event.remove(engine, "before_cursor_execute", note)
    explain = "EXPLAIN" if engine.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
    with engine.connect() as connection:
        return [
            "\n".join(
                " ".join(map(str, row)) for row in connection.exec_driver_sql(f"{explain} {one}", given)
            )
            for one, given in seen
        ]


def test_a_claim_takes_the_first_of_the_index_and_sorts_nothing(busy_desk, engine):
    (plan,) = plans_of(engine, busy_desk.claim)
    assert "jobs_queue" in plan
    assert "Sort" not in plan
    assert "TEMP B-TREE" not in plan


def test_leases_are_looked_at_without_reading_the_queue(busy_desk, engine):
    (plan,) = plans_of(engine, busy_desk.queue.leases)
    assert "jobs_live" in plan or "SEARCH jobs USING INDEX jobs_queue (state=?)" in plan
