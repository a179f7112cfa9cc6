"""Forgetting jobs that ended long ago, with all that is kept of them."""

from __future__ import annotations

import time

from sqlalchemy import Engine, delete, select

from planner_service.jobs import FINAL
from planner_service.store.database import writing
from planner_service.store.job_tables import attempts, idempotency_keys, job_events, job_logs, jobs

BATCH_JOBS = 500
"""Few enough that other writers do not wait long for one batch."""


def delete_ended_jobs(engine: Engine, age_seconds: float, *, now: float | None = None) -> int:
    """Forget jobs that ended more than `age_seconds` ago; return how many they were.

    Their measurements stay: those have a retention of their own.
    """
    oldest = (time.time() if now is None else now) - age_seconds
    deleted = 0
    while batch := _delete_batch(engine, oldest):
        deleted += batch
    return deleted


def _delete_batch(engine: Engine, oldest: float) -> int:
    ended = select(jobs.c.number).where(
        jobs.c.state.in_([str(state) for state in sorted(FINAL)]), jobs.c.updated_at < oldest
    )
    with writing(engine) as connection:
        numbers = (
            connection.execute(ended.limit(BATCH_JOBS).with_for_update(skip_locked=True)).scalars().all()
        )
        if not numbers:
            return 0
        for table in (idempotency_keys, job_logs, job_events, attempts):
            connection.execute(delete(table).where(table.c.job.in_(numbers)))
        connection.execute(delete(jobs).where(jobs.c.number.in_(numbers)))
    return len(numbers)
