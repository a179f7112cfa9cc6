"""Probes: asked of a node, given to its agent, ended by the agent's report.

A node has one agent, and the agent asks only while it measures nothing: what it was given before and has not
reported, it has lost. So the same probe is given again, with neither lease nor clock, a few times.
"""

from __future__ import annotations

import secrets
import time

from sqlalchemy import ColumnElement, Engine, insert, select, update

from planner_service.contract import canonical_json
from planner_service.contract.newer import as_far_as_known
from planner_service.contract.probes import Probe, ProbePage, ProbeRequest
from planner_service.jobs import UnknownNode, UnknownProbe
from planner_service.store.database import writing
from planner_service.store.job_records import JobRow, lock_first, moment
from planner_service.store.job_tables import nodes
from planner_service.store.jobs import Clock
from planner_service.store.pages import latest_rows
from planner_service.store.probe_tables import probes
from planner_service.store.retention import delete_batch

MOST_HANDOVERS = 3
"""A probe that its agent did not survive so often is not given again."""

_OPEN = probes.c.state.in_(["queued", "running"])


class ProbeStore:
    """Probes in the database. Every method is one transaction, committed before it returns."""

    def __init__(self, engine: Engine, *, clock: Clock = time.time) -> None:
        self._engine = engine
        self._clock = clock

    def add(self, request: ProbeRequest) -> Probe:
        """Queue a probe for its node. Raises UnknownNode."""
        at = self._clock()
        row = {
            "id": secrets.token_hex(10),
            "node": request.node,
            "state": "queued",
            "request": canonical_json(request),
            "handovers": 0,
            "created_at": at,
            "updated_at": at,
        }
        with writing(self._engine) as connection:
            if connection.execute(select(nodes.c.name).where(nodes.c.name == request.node)).first() is None:
                raise UnknownNode(request.node)
            return _probe(connection.execute(insert(probes).values(row).returning(probes)).one())

    def get(self, probe_id: str) -> Probe:
        """The probe. Raises UnknownProbe."""
        with self._engine.connect() as connection:
            row = connection.execute(select(probes).where(probes.c.id == probe_id)).one_or_none()
        if row is None:
            raise UnknownProbe(probe_id)
        return _probe(row)

    def page(self, *, limit: int, before: int | None = None, node: str | None = None) -> ProbePage:
        """The latest `limit` probes, or those before the row numbered `before`, of all nodes or of one."""
        rows, cursor = latest_rows(
            self._engine, select(probes), probes, limit=limit, before=before, node=node
        )
        return ProbePage(probes=[_probe(row) for row in rows], next_cursor=cursor)

    def claim(self, node: str) -> Probe | None:
        """The oldest probe that waits for the node's agent, or None. What cannot be given fails here."""
        waiting = probes.c.node == node, _OPEN
        with self._engine.connect() as connection:  # asked every few seconds, and there is hardly ever one
            if connection.execute(select(probes.c.number).where(*waiting).limit(1)).first() is None:
                return None
        while True:
            with writing(self._engine) as connection:
                row = lock_first(connection, select(probes).where(*waiting).order_by(probes.c.number))
                if row is None:
                    return None
                refusal = _why_not_given(row)
                changes = {"state": "running", "handovers": row.handovers + 1, "updated_at": self._clock()}
                if refusal is not None:
                    changes |= {"state": "failed", "handovers": row.handovers, "detail": refusal}
                changed = update(probes).where(probes.c.number == row.number).values(changes)
                kept = connection.execute(changed.returning(probes)).one()
            if refusal is None:
                return _probe(kept)

    def end(self, probe_id: str, *, profile_id: str | None, detail: str | None) -> Probe:
        """Its agent reported a profile, or why there is none; after the first report, nothing changes.

        Raises UnknownProbe.
        """
        ended = {
            "state": "failed" if profile_id is None else "succeeded",
            "profile_id": profile_id,
            "detail": detail,
            "updated_at": self._clock(),
        }
        with writing(self._engine) as connection:
            connection.execute(update(probes).where(_is(probe_id), _OPEN).values(ended))
            row = connection.execute(select(probes).where(_is(probe_id))).one_or_none()
        if row is None:
            raise UnknownProbe(probe_id)
        return _probe(row)

    def delete_older_than(self, age_seconds: float) -> int:
        """Forget some of the probes that ended more than `age_seconds` ago; return how many they were, 0 when
        none are left.
        """
        return delete_batch(
            self._engine, probes, ~_OPEN & (probes.c.updated_at < self._clock() - age_seconds)
        )


def _is(probe_id: str) -> ColumnElement[bool]:
    return probes.c.id == probe_id


def _why_not_given(row: JobRow) -> str | None:
    if row.handovers >= MOST_HANDOVERS:
        return f"the agent was lost {row.handovers} times meanwhile"
    try:
        ProbeRequest.model_validate_json(row.request)
    except ValueError:  # its profile would be that of another model
        return "a newer service on this database took it, and this one does not know all that it asks for"
    return None


def _probe(row: JobRow) -> Probe:
    """As it is shown."""
    return Probe(
        id=row.id,
        node=row.node,
        request=as_far_as_known(ProbeRequest, row.request),
        state=row.state,
        handovers=row.handovers,
        profile_id=row.profile_id,
        detail=row.detail,
        created_at=moment(row.created_at),
        updated_at=moment(row.updated_at),
    )
