"""Every error of the application as a problem document (RFC 9457); routes never build one."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, cast

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as SQLAlchemyTimeout
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from planner_service.api.body_limit import most_body_bytes
from planner_service.api.errors import (
    RETRY_AFTER_SECONDS,
    STATUSES,
    BodyTooLarge,
    CompressedBody,
    InternalError,
    MalformedJson,
    MethodNotAllowed,
    StorageStalled,
    StorageUnavailable,
    UnknownPath,
    UnstorableText,
    UnsupportedMediaType,
)
from planner_service.api.routes import allowed_methods
from planner_service.api.watching.request_ids import HEADER, request_id
from planner_service.chain import PlanningError
from planner_service.contract import (
    PROBLEM_MEDIA_TYPE,
    ProblemDocument,
    problem_from_details,
    problem_from_error,
)

log = logging.getLogger(__name__)


def add_handlers(app: FastAPI) -> None:
    """Make every error that leaves a route a problem document."""
    app.add_exception_handler(PlanningError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _framework_refused)
    app.add_exception_handler(SQLAlchemyError, _storage_failed)
    app.add_exception_handler(Exception, _failed)


async def _refused(request: Request, error: Exception) -> Response:
    return problem_response(request, cast("PlanningError", error))


async def _invalid(request: Request, error: Exception) -> Response:
    errors = cast("RequestValidationError", error).errors()
    first = errors[0]
    if first["type"] == "json_invalid":
        return problem_response(request, MalformedJson(first["ctx"]["error"], first["loc"][-1]))
    if isinstance(cast("RequestValidationError", error).body, bytes):  # FastAPI did not try to parse it
        return problem_response(request, UnsupportedMediaType(request.headers.get("content-type", "")))
    return _send(request, problem_from_details([_without_body(item) for item in errors]))


def _without_body(error: Mapping[str, Any]) -> Any:
    """The error with its location inside the body; `query.limit` keeps its place."""
    location = error["loc"]
    return {**error, "loc": location[1:] if location[0] == "body" else location}


async def _framework_refused(request: Request, error: Exception) -> Response:
    """What FastAPI and Starlette refuse before a route runs."""
    status = cast("HTTPException", error).status_code
    if status == 405:
        allowed = allowed_methods(request.url.path)
        headers = {"allow": ", ".join(allowed)}
        return problem_response(request, MethodNotAllowed(request.method, allowed), headers)
    if status == 413:
        of_all = request.app.state.service.settings.max_body_bytes
        limit = most_body_bytes(request.scope, of_all)
        refusal = BodyTooLarge(maximum_body_bytes=limit, of_strangers=limit < of_all)
        return problem_response(request, refusal)
    if status == 415:
        return problem_response(request, CompressedBody(request.headers.get("content-encoding", "")))
    if status == 400:
        return problem_response(request, MalformedJson(_reason_of(error)))
    return problem_response(request, UnknownPath(request.url.path))


def _reason_of(error: Exception) -> str:
    """Why the body could not be read, where JSON's grammar alone was not the reason."""
    cause = error.__cause__
    if isinstance(cause, RecursionError):
        return "it is nested too deeply"
    return "it is not valid UTF-8" if isinstance(cause, UnicodeError) else str(cause or error)


async def _storage_failed(request: Request, error: Exception) -> Response:
    return storage_problem_response(request, error)


def storage_problem_response(request: Request, error: Exception) -> Response:
    """What the database refuses: a text it cannot hold, or everything, while it is down or full."""
    if isinstance(error, DataError):
        return problem_response(request, UnstorableText())
    is_lost = isinstance(error, DBAPIError) and error.connection_invalidated
    if not (is_lost or isinstance(error, OperationalError | InterfaceError | SQLAlchemyTimeout)):
        return _fault_response(request, error)
    details = {"action": "storage_failed", "request_id": request_id(request.scope)}
    log.error("database: %s", error, extra=details)
    was_committing = is_lost and cast("DBAPIError", error).statement is None
    return problem_response(request, StorageStalled() if was_committing else StorageUnavailable())


async def _failed(request: Request, error: Exception) -> Response:
    return _fault_response(request, error)


def _fault_response(request: Request, error: Exception) -> Response:
    log.error(
        "request failed",
        exc_info=error,
        extra={"action": "request_failed", "request_id": request_id(request.scope)},
    )
    # Starlette answers outside the middleware that sets the header. uvicorn closes the connection of what
    # raised: a client that is not told sends its next request into it.
    headers = {HEADER: request_id(request.scope), "connection": "close"}
    return problem_response(request, InternalError(), headers)


def problem_response(
    request: Request, error: PlanningError, headers: Mapping[str, str] | None = None
) -> Response:
    """The answer that says what `error` says."""
    problem = problem_from_error(error)
    sent = dict(headers or {})
    if status := STATUSES.get(type(error)):
        problem = problem.model_copy(update={"status": status})
    if seconds := getattr(error, "retry_after_seconds", RETRY_AFTER_SECONDS.get(type(error))):
        sent["retry-after"] = str(seconds)
    if status == 401:
        sent["www-authenticate"] = "Bearer"
    return _send(request, problem, sent)


def _send(request: Request, problem: ProblemDocument, headers: Mapping[str, str] | None = None) -> Response:
    document = problem.model_dump(exclude_none=True) | {"request_id": request_id(request.scope)}
    # Escaped to ASCII: a refusal may quote halves of surrogate pairs, which UTF-8 cannot write.
    body = json.dumps(document).encode()
    return Response(body, problem.status, headers, media_type=PROBLEM_MEDIA_TYPE)
