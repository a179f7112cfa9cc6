"""Nodes: what each has, and when it was last heard of."""

from __future__ import annotations

import json
import time
from typing import Any, get_args

from sqlalchemy import Engine, select

from planner_service.contract import canonical_json
from planner_service.contract.attempts import LOST_AFTER_SECONDS
from planner_service.contract.newer import as_far_as_known
from planner_service.contract.nodes import Node, NodePage, NodeRegistration, NodeState
from planner_service.jobs import DeviceKind, Offer, UnknownNode
from planner_service.store.database import writing
from planner_service.store.job_records import JobRow, moment
from planner_service.store.job_tables import nodes
from planner_service.store.jobs import Clock
from planner_service.store.pages import ROWS_AT_A_TIME, page_of
from planner_service.store.upsert import insert_into

UNREACHABLE_AFTER_SECONDS = 60


class NodeStore:
    """Nodes in the database. Every method is one transaction, committed before it returns."""

    def __init__(self, engine: Engine, *, clock: Clock = time.time) -> None:
        self._engine = engine
        self._clock = clock

    def register(self, name: str, registration: NodeRegistration) -> tuple[Node, bool]:
        """Keep what the node says of itself; return it and whether its name is new."""
        at = self._clock()
        told = {
            "device_kind": registration.device_kind,
            "memory_free_bytes": registration.memory_free_bytes,
            "registration": canonical_json(registration),
            "seen_at": at,
        }
        with writing(self._engine) as connection:
            row = insert_into(connection, nodes).values(name=name, registered_at=at, **told)
            is_known = connection.execute(select(nodes.c.name).where(nodes.c.name == name)).first()
            written = row.on_conflict_do_update(index_elements=["name"], set_=told).returning(nodes)
            kept = connection.execute(written).one()
        return self._node(kept), is_known is None

    def get(self, name: str) -> Node:
        """The node. Raises UnknownNode."""
        with self._engine.connect() as connection:
            row = connection.execute(select(nodes).where(nodes.c.name == name)).one_or_none()
        if row is None:
            raise UnknownNode(name)
        return self._node(row)

    def page(self, *, limit: int, after: str = "") -> NodePage:
        """At most `limit` nodes by name, those that come after the name `after`."""
        query = select(nodes).where(nodes.c.name > after).order_by(nodes.c.name).limit(limit + 1)
        query = query.execution_options(yield_per=ROWS_AT_A_TIME)
        with self._engine.connect() as connection, connection.execute(query) as rows:
            shown, has_more = page_of(rows, limit)
        return NodePage(
            nodes=[self._node(row) for row in shown], next_cursor=shown[-1].name if has_more else None
        )

    def offers(self) -> list[Offer]:
        """What the workers that were heard of lately claim jobs for."""
        now = self._clock()
        lately = nodes.c.seen_at.between(now - LOST_AFTER_SECONDS, now + LOST_AFTER_SECONDS)
        with self._engine.connect() as connection:
            rows = connection.execute(select(nodes.c.registration).where(lately)).scalars().all()
        offers = [_offer(json.loads(registration)) for registration in rows]
        return [offer for offer in offers if offer.device_kind in get_args(DeviceKind)]

    def _node(self, row: JobRow) -> Node:
        told = {
            "memory_free_bytes": row.memory_free_bytes,
            "name": row.name,
            "state": _state(self._clock() - row.seen_at),
            "registered_at": moment(row.registered_at).isoformat(),
            "seen_at": moment(row.seen_at).isoformat(),
        }
        return as_far_as_known(Node, json.dumps(json.loads(row.registration) | told))


def _offer(registration: dict[str, Any]) -> Offer:
    return Offer(
        engines=frozenset(registration.get("engines", ("agents",))),
        device_kind=registration["device_kind"],
        memory_bytes=registration["memory_total_bytes"],
    )


def _state(silent_seconds: float) -> NodeState:
    """A node that was heard of long after now was so before the clock was put back, and never since."""
    away_seconds = abs(silent_seconds)
    if away_seconds < UNREACHABLE_AFTER_SECONDS:
        return "ready"
    return "unreachable" if away_seconds < LOST_AFTER_SECONDS else "lost"
