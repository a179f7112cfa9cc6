"""The queue: jobs into a node's or an engine's hands, and back when nobody looks after them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple

from sqlalchemy import Connection, Engine, Select, select, update

from planner_service.contract.attempts import LEASE_SECONDS
from planner_service.contract.jobs import Job
from planner_service.contract.nodes import Assignment, ClaimRequest
from planner_service.jobs import (
    LIVE,
    Change,
    DeviceKind,
    Lease,
    Standing,
    State,
    UnknownNode,
    assign,
    expire,
    give_up,
    new_token,
    refuse,
    token_hash,
)
from planner_service.jobs.needs import FREE
from planner_service.store.database import writing
from planner_service.store.job_records import JobRow, change_job, is_readable, job_of, lock_first, lock_job
from planner_service.store.job_tables import IS_LIVE, jobs, nodes
from planner_service.store.jobs import Clock

ROWS_AT_A_TIME = 50


class HandedOver(NamedTuple):
    """A job in an engine's hands, and the number of the handing-over."""

    job: Job
    number: int


class JobQueue:
    """Who is given which job. Every method is one transaction, committed before it returns."""

    def __init__(
        self, engine: Engine, *, lease_seconds: float = LEASE_SECONDS, clock: Clock = time.time
    ) -> None:
        self._engine = engine
        self._lease_seconds = lease_seconds
        self._clock = clock

    def claim(self, claim: ClaimRequest) -> Assignment | None:
        """The most urgent job that fits on the node, or None. Raises UnknownNode.

        Two that ask at once get different jobs.
        """
        with writing(self._engine) as connection:
            seen = update(nodes).where(nodes.c.name == claim.node).returning(nodes.c.device_kind)
            values = {"seen_at": self._clock(), "memory_free_bytes": claim.memory_free_bytes}
            kind = connection.execute(seen.values(values)).scalar()
            if kind is None:
                raise UnknownNode(claim.node)
            fits = jobs.c[f"{kind}_needed_bytes"] <= claim.memory_free_bytes
            query = _most_urgent(claim.engines).where(fits, jobs.c.id.not_in(claim.except_jobs))
            row = _first_readable(connection, query)
            if row is None:
                return None
            token = new_token()

            def give(standing: Standing) -> Change:
                needs = standing.needs.on(kind)
                granted = needs.granted_bytes(standing.budget, claim.memory_free_bytes)
                hashed = token_hash(token)
                return assign(standing, launch_hash=hashed, node=claim.node, granted_bytes=granted)

            job = change_job(connection, row, give, self._clock())
            return self._assignment(job, row.handovers + 1, token)

    def _assignment(self, job: Job, number: int, launch_token: str) -> Assignment:
        return Assignment(
            job=job, number=number, launch_token=launch_token, lease_seconds=self._lease_seconds
        )

    def queued_for(
        self, engines: Sequence[str], *, limit: int, may_go: Callable[[str], bool] = lambda job_id: True
    ) -> list[Job]:
        """The most urgent jobs that wait for one of these engines and `may_go`, less those of a newer
        service. However many of the others are more urgent, they are in nobody's way.
        """
        query = _most_urgent(engines).execution_options(yield_per=ROWS_AT_A_TIME)
        with self._engine.connect() as connection, connection.execute(query) as rows:
            ready = (row for row in rows if may_go(row.id) and is_readable(row))
            return [job_of(row) for row in islice(ready, limit)]

    def hand_over(
        self,
        job_id: str,
        *,
        node: str | None = None,
        kind: DeviceKind = "cpu",
        memory_bytes: int | None = None,
    ) -> Assignment:
        """Give a queued job to its engine, which sets `memory_bytes` aside for its training on a device of
        that kind; None: that is not known. Raises UnknownJob and JobNotQueued.
        """
        token = new_token()
        with writing(self._engine) as connection:
            row = lock_job(connection, job_id)

            def give(standing: Standing) -> Change:
                known = memory_bytes is not None or standing.budget != FREE
                needs, hashed = standing.needs.on(kind), token_hash(token)
                granted = needs.granted_bytes(standing.budget, memory_bytes or 0) if known else None
                return assign(standing, launch_hash=hashed, node=node, granted_bytes=granted)

            job = change_job(connection, row, give, self._clock())
            return self._assignment(job, row.handovers + 1, token)

    def note_engine(self, job_id: str, engine_reference: str, *, number: int) -> bool:
        """Remember what the engine calls the handing-over of that number; whether it is still the job's last,
        and the job alive. Raises UnknownJob.
        """
        with writing(self._engine) as connection:
            row = lock_job(connection, job_id)
            if row.handovers != number or row.state not in LIVE:
                return False
            named = update(jobs).where(jobs.c.number == row.number)
            connection.execute(named.values(engine_reference=engine_reference))
            return True

    def give_up(self, job_id: str, detail: str, *, number: int) -> Job:
        """The engine will not run the handing-over of that number any more: queue the job again, unless it
        has been given to somebody since. Raises UnknownJob.
        """
        with writing(self._engine) as connection:
            row = lock_job(connection, job_id)
            if row.handovers != number:
                return job_of(row)
            return change_job(connection, row, lambda job: give_up(job, detail), self._clock())

    def refuse(self, job_id: str, detail: str) -> Job:
        """The engine will never run the job: it has failed. Raises UnknownJob."""
        with writing(self._engine) as connection:
            row = lock_job(connection, job_id)
            return change_job(connection, row, lambda job: refuse(job, detail), self._clock())

    def live(self, engines: Sequence[str]) -> list[HandedOver]:
        """Assigned and running jobs of these engines."""
        return self._handed_over(_of(engines).where(IS_LIVE).order_by(jobs.c.number))

    def cancelled(self, engines: Sequence[str], *, limit: int) -> list[HandedOver]:
        """The latest jobs that were cancelled when one of these engines had been given them."""
        was_given = (jobs.c.state == str(State.CANCELLED)) & (jobs.c.handovers > 0)
        return self._handed_over(_of(engines).where(was_given).order_by(jobs.c.number.desc()).limit(limit))

    def _handed_over(self, query: Select[tuple[object, ...]]) -> list[HandedOver]:
        with self._engine.connect() as connection:
            return [HandedOver(job_of(row), row.handovers) for row in connection.execute(query)]

    def leases(self) -> list[Lease]:
        """Every job that somebody is to look after now."""
        query = select(jobs.c.id, jobs.c.state, jobs.c.attempt, jobs.c.renewals).where(IS_LIVE)
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return [Lease(row.id, State(row.state), row.attempt, row.renewals) for row in rows]

    def expire(self, lease: Lease) -> bool:
        """End a lease, unless somebody has shown a sign of life since it was read; whether it ended."""
        unchanged = select(jobs).where(
            jobs.c.id == lease.job_id,
            jobs.c.state == str(lease.state),
            jobs.c.attempt == lease.attempt,
            jobs.c.renewals == lease.renewals,
        )
        with writing(self._engine) as connection:
            row = lock_first(connection, unchanged, skip_locked=True)  # who holds it is the sign of life
            if row is None:
                return False
            return bool(change_job(connection, row, expire, self._clock()).state != row.state)


def _first_readable(connection: Connection, query: Select[tuple[object, ...]]) -> JobRow | None:
    """The first job of `query` that nobody holds; those of a newer service on this database are its own."""
    while (row := lock_first(connection, query, skip_locked=True)) is not None and not is_readable(row):
        query = query.where(jobs.c.id != row.id)
    return row


def _of(engines: Sequence[str]) -> Select[tuple[object, ...]]:
    query: Select[tuple[object, ...]] = select(jobs)
    return query.where(jobs.c.engine.in_(list(engines)))


def _most_urgent(engines: Sequence[str]) -> Select[tuple[object, ...]]:
    """Queued jobs: higher priority first, then the older one."""
    return _of(engines).where(jobs.c.state == str(State.QUEUED)).order_by(jobs.c.queue_rank, jobs.c.number)
