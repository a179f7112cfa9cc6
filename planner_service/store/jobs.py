"""Jobs: submitted, read, listed, cancelled."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable

from sqlalchemy import Connection, Engine, func, insert, select
from sqlalchemy.exc import IntegrityError

from planner_service.contract import canonical_json
from planner_service.contract.jobs import Engine as JobEngine
from planner_service.contract.jobs import Job, JobPage, JobRequest, JobState
from planner_service.jobs import IdempotencyKeyReused, JobNeeds, Standing, State, UnknownJob, cancel
from planner_service.store.database import writing
from planner_service.store.job_records import (
    add_event,
    change_job,
    columns_of,
    job_of,
    lock_job,
    submitted_event,
)
from planner_service.store.job_tables import idempotency_keys, jobs
from planner_service.store.pages import latest_rows

Clock = Callable[[], float]


class JobStore:
    """Jobs in the database. Every method is one transaction, committed before it returns.

    `clock` gives the Unix seconds that people are shown; nothing is decided by them.
    """

    def __init__(self, engine: Engine, *, clock: Clock = time.time) -> None:
        self._engine = engine
        self._clock = clock

    def submit(
        self,
        request: JobRequest,
        needs: JobNeeds,
        *,
        engine: JobEngine,
        caller: str,
        idempotency_key: str | None = None,
    ) -> tuple[Job, bool]:
        """Queue a job; return it and whether it is new: one key makes one job, however often it is sent.

        Raises IdempotencyKeyReused.
        """
        document = canonical_json(request)
        digest = hashlib.sha256(document).hexdigest()
        standing = Standing(
            engine=engine,
            maximum_failures=request.maximum_failures,
            needs=needs,
            budget=request.budget,
        )
        row = self._new_row(request, document, standing, caller)
        if idempotency_key is None:
            with writing(self._engine) as connection:
                return _insert(connection, row, standing), True
        key = {"caller": caller, "key": idempotency_key, "request_digest": digest}
        try:
            with writing(self._engine) as connection:
                return _insert_once(connection, row, standing, key)
        except IntegrityError:  # another process was faster with the same key
            with writing(self._engine) as connection:
                return _insert_once(connection, row, standing, key)

    def _new_row(
        self, request: JobRequest, document: bytes, standing: Standing, caller: str
    ) -> dict[str, object]:
        job_id, at = secrets.token_hex(10), self._clock()
        return {
            **columns_of(standing),
            "id": job_id,
            "name": request.name or job_id,
            "request": document,
            "submitted_by": caller,
            "queue_rank": -request.priority,
            "event_count": 1,
            "created_at": at,
            "updated_at": at,
        }

    def get(self, job_id: str) -> Job:
        """The job. Raises UnknownJob."""
        with self._engine.connect() as connection:
            row = connection.execute(select(jobs).where(jobs.c.id == job_id)).one_or_none()
        if row is None:
            raise UnknownJob(job_id)
        return job_of(row)

    def counts(self) -> dict[str, int]:
        """How many jobs there are in each state, those that none is in included."""
        query = select(jobs.c.state, func.count()).group_by(jobs.c.state)
        with self._engine.connect() as connection:
            found = {str(state): int(count) for state, count in connection.execute(query)}
        return {str(state): found.get(str(state), 0) for state in State}

    def page(self, *, limit: int, before: int | None = None, state: JobState | None = None) -> JobPage:
        """The latest `limit` jobs, or those before the row numbered `before`."""
        rows, cursor = latest_rows(self._engine, select(jobs), jobs, limit=limit, before=before, state=state)
        return JobPage(jobs=[job_of(row) for row in rows], next_cursor=cursor)

    def cancel(self, job_id: str) -> Job:
        """Cancel it, or ask its worker to stop. Raises UnknownJob and JobEnded."""
        with writing(self._engine) as connection:
            row = lock_job(connection, job_id)
            return change_job(connection, row, cancel, self._clock())


def _insert(connection: Connection, row: dict[str, object], standing: Standing) -> Job:
    kept = connection.execute(insert(jobs).values(row).returning(jobs)).one()
    add_event(connection, kept.number, submitted_event(standing, kept.created_at))
    return job_of(kept)


def _insert_once(
    connection: Connection, row: dict[str, object], standing: Standing, key: dict[str, str]
) -> tuple[Job, bool]:
    """The job that this key made before, or a new one."""
    used = (
        select(idempotency_keys.c.request_digest, jobs)
        .join(jobs, jobs.c.number == idempotency_keys.c.job)
        .where(idempotency_keys.c.caller == key["caller"], idempotency_keys.c.key == key["key"])
    )
    known = connection.execute(used).one_or_none()
    if known is None:
        job = _insert(connection, row, standing)
        number = select(jobs.c.number).where(jobs.c.id == job.id).scalar_subquery()
        connection.execute(insert(idempotency_keys).values(**key, job=number))
        return job, True
    if known.request_digest != key["request_digest"]:
        raise IdempotencyKeyReused(job_id=known.id)
    return job_of(known), False
