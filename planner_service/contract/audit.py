"""The audit log on the wire (v1)."""

from __future__ import annotations

from datetime import datetime

from planner_service.contract.base import Answer


class AuditEntry(Answer):
    """One thing that somebody did, or was not allowed to do."""

    number: int
    at: datetime
    caller: str
    """A key's name, `oidc:SUBJECT`, `job:ID` or `job:ID/ATTEMPT` for a worker with its token, or
    `shell:USER` for a command beside the database."""
    address: str
    """Where the request came from; empty for a command."""
    action: str
    """The operation's id in the OpenAPI document, or the command: submit_job, keys_create; of a 403 the
    request's method."""
    subject: str
    """The path, or what the command was about."""
    status: int
    """The HTTP status; 403 is an attempt that was refused."""
    request_id: str


class AuditPage(Answer):
    """Entries, the latest first."""

    entries: list[AuditEntry]
    next_cursor: str | None = None
    """Give it as `cursor` for the entries before; null when there are none."""
