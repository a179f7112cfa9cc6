"""The gate before the routes: who asks, whether they may, how often; and the audit log of what they did.

It is there only where the service asks (`Settings.asks_who`). It answers before a byte of the body is read.
"""

from __future__ import annotations

import logging
import math
import time
from contextlib import suppress
from functools import partial

from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from planner_service.api.access.access import Access, access_to
from planner_service.api.access.credentials import Credentials, Grant
from planner_service.api.access.identity import Caller, caller_in, remember_caller
from planner_service.api.access.key_ring import REFRESH_SECONDS
from planner_service.api.access.rate_limit import RateLimit
from planner_service.api.body_limit import limit_body
from planner_service.api.errors import (
    StorageStalled,
    TooManyRequests,
    Unauthenticated,
    WrongScope,
)
from planner_service.api.handlers import problem_response, storage_problem_response
from planner_service.api.jobs.open_streams import NoLongerAdmitted, send_while
from planner_service.api.storage import stored
from planner_service.api.watching.request_ids import request_id
from planner_service.chain import PlanningError
from planner_service.settings import Settings
from planner_service.store import AuditStore

log = logging.getLogger(__name__)


class Gate:
    """Admits a request or refuses it with 401, 403 or 429."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._limit = RateLimit(settings.requests_per_second)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        access = access_to(scope["method"], scope["path"])
        service = scope["app"].state.service
        try:
            grant = await self._admit(scope, access, service.credentials)
        except PlanningError as error:
            if isinstance(error, WrongScope):
                await _write_down(service.audit, scope, 403)
            await problem_response(Request(scope), error)(scope, receive, send)
        except SQLAlchemyError as error:
            await storage_problem_response(Request(scope), error)(scope, receive, send)
        else:
            send = _audited(scope, access, service.audit, send)
            if grant is not None:
                token = _bearer_token(scope)
                pause_seconds = 0.0 if grant.is_key else REFRESH_SECONDS
                still = partial(_is_admitted, service.credentials, token, access)
                send = send_while(still, pause_seconds, send)
            with suppress(NoLongerAdmitted):
                await self._app(scope, receive, send)

    async def _admit(self, scope: Scope, access: Access, credentials: Credentials) -> Grant | None:
        """What the caller's credentials are good for; None where the route asks for no key."""
        address = _address(scope)
        token = _bearer_token(scope)
        if access.scope is None:
            self._count(f"address:{address}")
            if access.of_job is not None:
                job_id = scope["path"].split("/")[3]
                await credentials.require_token_of(job_id, token, opens=access.of_job == "launch")
                remember_caller(scope, Caller(f"job:{job_id[:100]}"))
            limit_body(scope, access.most_body_bytes)
            return None
        grant = await credentials.of_key(token)
        if grant is not None:
            self._count(grant.caller)
        else:  # whoever guesses is counted before the database is asked about the guess
            self._count(f"address:{address}")
            grant = await credentials.of_token(token)
        if grant is None:
            raise Unauthenticated
        remember_caller(scope, Caller(grant.caller))
        if not grant.allows(access):
            raise WrongScope(needed_scope=access.scope)
        return grant

    def _count(self, caller: str) -> None:
        seconds = self._limit.wait_seconds(caller, time.monotonic())
        if seconds:
            raise TooManyRequests(retry_after_seconds=math.ceil(seconds))


async def _is_admitted(credentials: Credentials, token: str, access: Access) -> bool:
    """Whether `token` still opens the route; while nobody can say, what was said last counts."""
    try:
        grant = await credentials.of_key(token) or await credentials.of_token(token)
    except (SQLAlchemyError, PlanningError):
        return True
    return grant is not None and grant.allows(access)


def _bearer_token(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"authorization":
            kind, _, token = bytes(value).decode("latin-1").partition(" ")
            return token.strip() if kind.lower() == "bearer" else ""
    return ""


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


def _audited(scope: Scope, access: Access, audit: AuditStore, send: Send) -> Send:
    """`send`, with an entry in the log before an answer that says that something was changed."""
    if not access.audited:
        return send

    async def send_audited(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] in access.audited:
            await _write_down(audit, scope, message["status"])
        await send(message)

    return send_audited


async def _write_down(audit: AuditStore, scope: Scope, status: int) -> None:
    entry = {
        "caller": caller_in(scope).name,
        "address": _address(scope),
        "action": getattr(scope.get("endpoint"), "__name__", scope["method"]),
        "subject": scope["path"][:500].replace("\0", ""),
        "status": status,
        "request_id": request_id(scope),
    }
    try:
        await stored(lambda: audit.add(**entry))
    except (SQLAlchemyError, StorageStalled):
        # It was done and cannot be undone: then the log on standard error has to carry it.
        log.exception("audit entry not stored", extra={"action": "audit_entry_not_stored", "entry": entry})
