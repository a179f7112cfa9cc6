"""Forgetting what was kept long enough: a batch at a time, whatever there is."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from sqlalchemy import ColumnElement, Engine, Table, delete, select

from planner_service.jobs import FINAL
from planner_service.store.database import writing
from planner_service.store.job_tables import attempts, idempotency_keys, job_events, job_logs, jobs

BATCH_ROWS = 500
"""Few enough that other writers do not wait long for one batch."""
BATCH_EVENTS = 20_000
"""Of the jobs in a batch: one that ran for days has as many, and log lines besides."""


def delete_batch(engine: Engine, table: Table, is_old: ColumnElement[bool]) -> int:
    """Delete some of the old rows of `table`; return how many they were: 0 when there are none left."""
    (key,) = table.primary_key.columns
    batch = select(key).where(is_old).limit(BATCH_ROWS)
    with writing(engine) as connection:
        return connection.execute(delete(table).where(key.in_(batch))).rowcount


def delete_ended_jobs(engine: Engine, age_seconds: float, *, now: float | None = None) -> int:
    """Forget some of the jobs that ended more than `age_seconds` ago, with all that is kept of them; return
    how many they were: 0 when there are none left.

    Their measurements stay: those have a retention of their own.
    """
    oldest = (time.time() if now is None else now) - age_seconds
    ended = select(jobs.c.number, jobs.c.event_count).where(
        jobs.c.state.in_([str(state) for state in sorted(FINAL)]), jobs.c.updated_at < oldest
    )
    with writing(engine) as connection:
        found = connection.execute(
            ended.order_by(jobs.c.number).limit(BATCH_ROWS).with_for_update(skip_locked=True)
        ).all()
        numbers = list(_first_of((row.number, row.event_count) for row in found))
        if not numbers:
            return 0
        for table in (idempotency_keys, job_logs, job_events, attempts):
            connection.execute(delete(table).where(table.c.job.in_(numbers)))
        connection.execute(delete(jobs).where(jobs.c.number.in_(numbers)))
    return len(numbers)


def _first_of(found: Iterable[tuple[int, int]]) -> Iterator[int]:
    """Of jobs, as numbers and counts of events: the first that together have few enough, and one at least."""
    total = 0
    for number, events in found:
        total += events
        if total > BATCH_EVENTS and total != events:
            return
        yield number
