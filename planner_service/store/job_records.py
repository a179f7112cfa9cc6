"""Rows of jobs as standings and as the wire's jobs, and the one way to change them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, insert, select, update

from planner_service.contract.job_events import JobEvent
from planner_service.contract.jobs import Job, JobRequest, NeededBytes
from planner_service.contract.newer import as_far_as_known
from planner_service.jobs import Change, DeviceNeeds, JobNeeds, Reason, Standing, State, UnknownJob
from planner_service.store.job_tables import job_events, jobs

JobRow = Row[*tuple[Any, ...]]
Decide = Callable[[Standing], Change]

_PLAIN = (
    "engine",
    "maximum_failures",
    "detail",
    "cancel_requested",
    "is_tightened",
    "handovers",
    "attempt",
    "attempt_open",
    "failures",
    "node",
    "engine_reference",
    "launch_hash",
    "granted_bytes",
    "exhausted_bytes",
    "renewals",
    "iteration",
    "loss",
    "measurement_id",
)
"""Fields of a standing that are columns of the same name and type."""


def moment(unix_seconds: float) -> datetime:
    """A stored time as the wire has it."""
    return datetime.fromtimestamp(unix_seconds, UTC)


def columns_of(standing: Standing) -> dict[str, Any]:
    """A standing as column values."""
    columns: dict[str, Any] = {name: getattr(standing, name) for name in _PLAIN}
    for kind in ("cpu", "cuda"):
        needs: DeviceNeeds = getattr(standing.needs, kind)
        columns[f"{kind}_held_bytes"] = needs.held_bytes
        columns[f"{kind}_least_bytes"] = needs.least_bytes
        columns[f"{kind}_needed_bytes"] = needs.needed_bytes
    columns["budget"] = str(standing.budget)
    columns["state"] = str(standing.state)
    columns["reason"] = None if standing.reason is None else str(standing.reason)
    return columns


def standing_of(row: JobRow) -> Standing:
    """The standing in a row of `jobs`."""
    plain = {name: getattr(row, name) for name in _PLAIN}
    return Standing(
        **plain,
        needs=JobNeeds(cpu=_needs_of(row, "cpu"), cuda=_needs_of(row, "cuda")),
        budget=_budget_of(row.budget),
        state=State(row.state),
        reason=None if row.reason is None else Reason(row.reason),
    )


def _needs_of(row: JobRow, kind: str) -> DeviceNeeds:
    names = ("held_bytes", "least_bytes", "needed_bytes")
    return DeviceNeeds(**{name: getattr(row, f"{kind}_{name}") for name in names})


def _budget_of(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def request_of(row: JobRow) -> JobRequest:
    """What was submitted, for whoever is to do it. Raises ValueError where a newer service on the same
    database has taken what this version does not know.
    """
    return JobRequest.model_validate_json(row.request)


def is_readable(row: JobRow) -> bool:
    """Whether this version may give the job to somebody."""
    try:
        request_of(row)
    except ValueError:
        return False
    return True


def job_of(row: JobRow) -> Job:
    """The job in a row of `jobs`, as the wire has it; that of a newer service as far as it is known here."""
    return _job(row, standing_of(row), row.updated_at)


def _job(row: JobRow, standing: Standing, updated_at: float) -> Job:
    return Job(
        id=row.id,
        name=row.name,
        request=as_far_as_known(JobRequest, row.request),
        state=standing.state.value,
        reason=None if standing.reason is None else standing.reason.value,
        detail=standing.detail,
        cancel_requested=standing.cancel_requested,
        budget=standing.budget,
        needed_bytes=NeededBytes(cpu=standing.needs.cpu.needed_bytes, cuda=standing.needs.cuda.needed_bytes),
        attempt=standing.attempt,
        failures=standing.failures,
        node=standing.node,
        engine=row.engine,
        engine_reference=standing.engine_reference,
        iteration=standing.iteration,
        loss=standing.loss,
        created_at=moment(row.created_at),
        updated_at=moment(updated_at),
        measurement_id=standing.measurement_id,
    )


def lock_job(connection: Connection, job_id: str) -> JobRow:
    """The job's row, held against other writers until the transaction ends. Raises UnknownJob."""
    row = lock_first(connection, select(jobs).where(jobs.c.id == job_id))
    if row is None:
        raise UnknownJob(job_id)
    return row


def lock_first(connection: Connection, query: Select[Any], *, skip_locked: bool = False) -> JobRow | None:
    """The first row of `query`, or None, held against other writers; SQLite holds the whole database."""
    return connection.execute(query.limit(1).with_for_update(skip_locked=skip_locked)).first()


def change_job(connection: Connection, row: JobRow, decide: Decide, at: float) -> Job:
    """Apply a transition to a locked row: its new standing and its events, in this transaction."""
    before = standing_of(row)
    change = decide(before)
    after = change.standing
    if after == before and not change.events:
        return job_of(row)
    columns = columns_of(after) | {
        "updated_at": at,
        "event_count": row.event_count + len(change.events),
    }
    connection.execute(update(jobs).where(jobs.c.number == row.number).values(columns))
    for number, kind in enumerate(change.events, start=row.event_count + 1):
        add_event(connection, row.number, _event(number, kind, after, at))
    return _job(row, after, at)


def add_event(connection: Connection, job_number: int, event: JobEvent) -> None:
    """Write one event of a job."""
    values = {
        "job": job_number,
        "number": event.number,
        "kind": event.kind,
        "event": event.model_dump_json().encode(),
    }
    connection.execute(insert(job_events).values(values))


def _event(number: int, kind: Any, standing: Standing, at: float) -> JobEvent:
    return JobEvent(
        number=number,
        kind=kind,
        at=moment(at),
        state=standing.state.value,
        reason=None if standing.reason is None else standing.reason.value,
        detail=standing.detail,
        attempt=standing.attempt,
        budget=standing.budget,
        iteration=standing.iteration,
        loss=standing.loss,
    )


def submitted_event(standing: Standing, at: float) -> JobEvent:
    """The first event of every job."""
    return _event(1, "state", standing, at)
