"""The audit log: who did what, in the order in which it was done."""

from __future__ import annotations

import time

from sqlalchemy import Engine, insert, select

from planner_service.contract.audit import AuditEntry, AuditPage
from planner_service.store.database import writing
from planner_service.store.job_records import moment
from planner_service.store.pages import latest_rows
from planner_service.store.retention import delete_batch
from planner_service.store.security_tables import audit_entries


class AuditStore:
    """Entries are added and, when their retention is over, deleted; nothing changes one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(
        self,
        *,
        caller: str,
        action: str,
        subject: str,
        status: int = 200,
        address: str = "",
        request_id: str = "",
        now: float | None = None,
    ) -> None:
        """Write an entry; it is on the disk when this returns."""
        entry = {
            "at": time.time() if now is None else now,
            "caller": caller,
            "address": address,
            "action": action,
            "subject": subject,
            "status": status,
            "request_id": request_id,
        }
        with writing(self._engine) as connection:
            connection.execute(insert(audit_entries).values(entry))

    def page(
        self,
        *,
        limit: int,
        before: int | None = None,
        caller: str | None = None,
        action: str | None = None,
    ) -> AuditPage:
        """At most `limit` entries, the latest first, those before entry `before`."""
        query = select(audit_entries)
        rows, cursor = latest_rows(
            self._engine, query, audit_entries, limit=limit, before=before, caller=caller, action=action
        )
        entries = [AuditEntry(**{**row._asdict(), "at": moment(row.at)}) for row in rows]
        return AuditPage(entries=entries, next_cursor=cursor)

    def delete_older_than(self, age_seconds: float, *, now: float | None = None) -> int:
        """Forget some of the entries older than that; return how many they were, 0 when none are left."""
        oldest = (time.time() if now is None else now) - age_seconds
        return delete_batch(self._engine, audit_entries, audit_entries.c.at < oldest)
