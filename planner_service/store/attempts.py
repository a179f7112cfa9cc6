"""Attempts: opened, kept alive, ended, and nothing taken from one that was replaced."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, insert, select, update

from planner_service.contract import canonical_json
from planner_service.contract.attempts import (
    HEARTBEAT_SECONDS,
    LOST_AFTER_SECONDS,
    Attempt,
    AttemptReport,
    AttemptRequest,
    Heartbeat,
    HeartbeatReply,
    LogChunk,
)
from planner_service.contract.jobs import Job
from planner_service.jobs import (
    LIVE,
    AttemptEnded,
    AttemptResult,
    Change,
    InvalidToken,
    JobNotAssigned,
    Outcome,
    Standing,
    UnknownAttempt,
    end_attempt,
    is_token,
    new_token,
    open_attempt,
    renew,
    require_current,
    token_hash,
)
from planner_service.store.database import writing
from planner_service.store.job_history import add_log_lines
from planner_service.store.job_records import (
    JobRow,
    change_job,
    job_of,
    lock_job,
    request_of,
    standing_of,
)
from planner_service.store.job_tables import attempts, nodes
from planner_service.store.jobs import Clock
from planner_service.store.measurements import keep_measurement


@dataclass(frozen=True)
class AttemptCall:
    """Which attempt a worker speaks for, and the token by which it shows that it may."""

    job_id: str
    number: int
    token: str | None


class AttemptStore:
    """Attempts in the database. Every method is one transaction, committed before it returns.

    Every method that takes a call raises UnknownJob, UnknownAttempt, InvalidToken and StaleAttempt.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        lost_after_seconds: float = LOST_AFTER_SECONDS,
        clock: Clock = time.time,
    ) -> None:
        self._engine = engine
        self._heartbeat_seconds = heartbeat_seconds
        self._lost_after_seconds = lost_after_seconds
        self._clock = clock

    def open(self, job_id: str, launch_token: str | None, request: AttemptRequest) -> Attempt:
        """Begin the next attempt: from now on every older one is stale.

        Raises UnknownJob, JobNotAssigned and InvalidToken; ValueError for a job of a newer service.
        """
        token, at = new_token(), self._clock()
        with writing(self._engine) as connection:
            row = lock_job(connection, job_id)
            if row.state not in LIVE or row.launch_hash is None:
                raise JobNotAssigned(state=row.state)
            if not is_token(launch_token, row.launch_hash):
                raise InvalidToken
            request_of(row)  # raises where a worker would be told less than there is to do
            job = change_job(connection, row, _opening(request), at)
            values = {
                "job": row.number,
                "number": job.attempt,
                "token_hash": token_hash(token),
                "node": job.node,
                "engine_reference": job.engine_reference,
                "opened_at": at,
                "heartbeat_at": at,
            }
            connection.execute(insert(attempts).values(values))
        return Attempt(
            job=job,
            number=job.attempt,
            token=token,
            heartbeat_seconds=self._heartbeat_seconds,
            lost_after_seconds=self._lost_after_seconds,
        )

    def heartbeat(self, call: AttemptCall, heartbeat: Heartbeat) -> HeartbeatReply:
        """Renew the lease. Raises AttemptEnded too."""
        at = self._clock()
        with writing(self._engine) as connection:
            row, attempt = _checked(connection, call)

            def beat(standing: Standing) -> Change:
                return renew(
                    standing,
                    call.number,
                    node=attempt.node,
                    iteration=heartbeat.iteration,
                    loss=heartbeat.loss,
                )

            job = change_job(connection, row, beat, at)
            told = {"heartbeat_at": at, "memory_used_bytes": heartbeat.memory_used_bytes}
            _update(connection, row, call.number, told)
            _note_node(connection, attempt.node, heartbeat, at)
        return HeartbeatReply(cancel=job.cancel_requested or job.state not in LIVE)

    def add_logs(self, call: AttemptCall, chunk: LogChunk) -> None:
        """Keep lines of the worker's log; lines that came before are left as they are."""
        with writing(self._engine) as connection:
            row, _ = _checked(connection, call)
            require_current(standing_of(row), call.number)
            add_log_lines(connection, row.number, call.number, chunk, self._clock())

    def report(self, call: AttemptCall, report: AttemptReport) -> tuple[Job, bool]:
        """How the attempt ended, with its measurement, in one transaction: the job as it stands, and whether
        this was new: the same report may come again. Raises AttemptEnded too.
        """
        digest, at = hashlib.sha256(canonical_json(report)).hexdigest(), self._clock()
        with writing(self._engine) as connection:
            row, attempt = _checked(connection, call)
            if attempt.report_digest == digest:
                return job_of(row), False
            if attempt.report_digest is not None:
                raise AttemptEnded(attempt=call.number)
            require_current(standing_of(row), call.number)
            measurement_id = None
            if report.measurement is not None:
                measurement_id = keep_measurement(connection, report.measurement, at)
            result = _result(report, measurement_id)
            job = change_job(connection, row, lambda job: end_attempt(job, call.number, result), at)
            ended = {
                "ended_at": at,
                "outcome": report.outcome,
                "detail": report.detail,
                "budget_bytes": report.budget_bytes,
                "excess_bytes": report.excess_bytes,
                "measurement_id": measurement_id,
                "report_digest": digest,
            }
            _update(connection, row, call.number, ended)
        return job, True


def _opening(request: AttemptRequest) -> Callable[[Standing], Change]:
    return lambda job: open_attempt(job, node=request.node, engine_reference=request.engine_reference)


def _checked(connection: Connection, call: AttemptCall) -> tuple[JobRow, Any]:
    """The job's locked row and the attempt's, when the token is that of the attempt."""
    row = lock_job(connection, call.job_id)
    mine = (attempts.c.job == row.number) & (attempts.c.number == call.number)
    attempt = connection.execute(select(attempts).where(mine)).one_or_none()
    if attempt is None:
        raise UnknownAttempt(attempt=call.number, current_attempt=row.attempt)
    if not is_token(call.token, attempt.token_hash):
        raise InvalidToken
    return row, attempt


def _update(connection: Connection, row: JobRow, number: int, values: dict[str, Any]) -> None:
    mine = (attempts.c.job == row.number) & (attempts.c.number == number)
    connection.execute(update(attempts).where(mine).values(values))


def _note_node(connection: Connection, node: str | None, heartbeat: Heartbeat, at: float) -> None:
    """A worker's heartbeat shows that its node is there, too."""
    if node is None:
        return
    seen: dict[str, Any] = {"seen_at": at}
    if heartbeat.memory_free_bytes is not None:
        seen["memory_free_bytes"] = heartbeat.memory_free_bytes
    connection.execute(update(nodes).where(nodes.c.name == node).values(seen))


def _result(report: AttemptReport, measurement_id: str | None) -> AttemptResult:
    return AttemptResult(
        outcome=Outcome(report.outcome),
        detail=report.detail,
        iteration=report.iteration,
        loss=report.loss,
        measurement_id=measurement_id,
        is_permanent=report.is_permanent,
        budget_bytes=report.budget_bytes,
        excess_bytes=report.excess_bytes,
        minimum_budget_bytes=report.minimum_budget_bytes,
    )
