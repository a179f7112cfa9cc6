"""What is kept of a job besides its standing: events, log lines, attempts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, Engine, select, tuple_

from planner_service.contract.attempts import AttemptRecord, LogChunk
from planner_service.contract.job_events import JobLogLine, JobLogPage
from planner_service.jobs import FINAL, State, UnknownJob
from planner_service.store.job_records import moment
from planner_service.store.job_tables import attempts, job_events, job_logs, jobs
from planner_service.store.pages import page_of
from planner_service.store.upsert import insert_into

LINES_AT_A_TIME = 500


class EventsAfter(NamedTuple):
    """Events of a job, and whether there will be no more."""

    events: Sequence[tuple[int, str, bytes]]
    """Number, kind and JSON of each, the oldest first."""
    is_over: bool


class JobHistory:
    """Reads what happened to jobs. Every method raises UnknownJob."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def events_after(self, job_id: str, number: int, *, limit: int) -> EventsAfter:
        """At most `limit` events of the job that come after its event `number`."""
        with self._engine.connect() as connection:
            # Read first: an event of a job that was final already is in the second query for sure.
            job = connection.execute(select(jobs.c.number, jobs.c.state).where(jobs.c.id == job_id)).first()
            if job is None:
                raise UnknownJob(job_id)
            later = (job_events.c.job == job.number) & (job_events.c.number > number)
            query = select(job_events.c.number, job_events.c.kind, job_events.c.event).where(later)
            rows = connection.execute(query.order_by(job_events.c.number).limit(limit)).all()
        is_over = State(job.state) in FINAL and len(rows) < limit
        return EventsAfter([(row.number, row.kind, bytes(row.event)) for row in rows], is_over)

    def event_counts(self, job_ids: Collection[str]) -> dict[str, int]:
        """How many events each of these jobs has; nothing of those that there are not."""
        query = select(jobs.c.id, jobs.c.event_count).where(jobs.c.id.in_(job_ids))
        with self._engine.connect() as connection:
            return {row.id: row.event_count for row in connection.execute(query)}

    def logs(
        self, job_id: str, *, limit: int, after: tuple[int, int] = (0, 0), attempt: int | None = None
    ) -> JobLogPage:
        """At most `limit` lines after (attempt, line), of all attempts or of one."""
        with self._engine.connect() as connection:
            job = _number_of(connection, job_id)
            place = tuple_(job_logs.c.attempt, job_logs.c.line)
            query = select(job_logs).where(job_logs.c.job == job, place > tuple_(*after))
            query = query.order_by(job_logs.c.attempt, job_logs.c.line)
            if attempt is not None:
                query = query.where(job_logs.c.attempt == attempt)
            query = query.limit(limit + 1).execution_options(yield_per=LINES_AT_A_TIME)
            with connection.execute(query) as rows:
                shown, has_more = page_of(rows, limit)
        lines = [
            JobLogLine(attempt=row.attempt, line=row.line, at=moment(row.at), text=row.text) for row in shown
        ]
        cursor = f"{lines[-1].attempt}.{lines[-1].line}" if has_more else None
        return JobLogPage(lines=lines, next_cursor=cursor)

    def attempts(self, job_id: str) -> list[AttemptRecord]:
        """Every attempt at the job, the first one first."""
        with self._engine.connect() as connection:
            job = _number_of(connection, job_id)
            query = select(attempts).where(attempts.c.job == job).order_by(attempts.c.number)
            rows = connection.execute(query).all()
        return [
            AttemptRecord(
                number=row.number,
                node=row.node,
                engine_reference=row.engine_reference,
                opened_at=moment(row.opened_at),
                heartbeat_at=moment(row.heartbeat_at),
                memory_used_bytes=row.memory_used_bytes,
                ended_at=None if row.ended_at is None else moment(row.ended_at),
                outcome=row.outcome,
                detail=row.detail,
                budget_bytes=row.budget_bytes,
                excess_bytes=row.excess_bytes,
                measurement_id=row.measurement_id,
            )
            for row in rows
        ]


def _number_of(connection: Connection, job_id: str) -> int:
    number = connection.execute(select(jobs.c.number).where(jobs.c.id == job_id)).scalar()
    if number is None:
        raise UnknownJob(job_id)
    return int(number)


def add_log_lines(connection: Connection, job: int, attempt: int, chunk: LogChunk, at: float) -> None:
    """Keep the lines of `chunk` that are not there yet."""
    rows = [
        {"job": job, "attempt": attempt, "line": line, "at": at, "text": text.replace("\0", "\ufffd")}
        for line, text in enumerate(chunk.lines, start=chunk.first_line)
    ]
    connection.execute(insert_into(connection, job_logs).on_conflict_do_nothing(), rows)
