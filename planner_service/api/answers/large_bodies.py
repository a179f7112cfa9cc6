"""Large bodies are parsed and checked in a thread, so that the event loop goes on answering meanwhile.

The parser and the checker each hold the interpreter while they run, so a thread divides their time, no more:
what the loop waits for is the longer of the two, some 15 to 30 ms a MiB. `max_body_bytes` bounds the rest.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from planner_service.api.errors import ClientGone, MalformedJson, TooManyErrors

LARGE_BYTES = 64 * 2**10
"""About two milliseconds' worth; a thread costs a tenth of one."""

MOST_ERRORS = 1_000
"""Told one by one; a kilobyte of memory each."""

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class LargeBodyRoute(APIRoute):
    """A route with one JSON body, which is made a message off the event loop where it is large."""

    def get_route_handler(self) -> Handler:
        """FastAPI's handler, which takes the finished message as it is."""
        handler: Handler = super().get_route_handler()
        kind = None if self.body_field is None else self.body_field.field_info.annotation
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return handler
        message_kind = kind

        async def answer(request: Request) -> Response:
            return await handler(await _with_message(request, message_kind))

        return answer


def is_json(request: Request) -> bool:
    """Whether the body is declared as JSON, with parameters or without: many clients name a charset."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )


async def _with_message(request: Request, kind: type[BaseModel]) -> Request:
    if not is_json(request):
        return request
    try:
        body = await request.body()
    except ClientDisconnect:
        raise ClientGone from None
    if len(body) < LARGE_BYTES:
        return request
    return _Read(request, body, await asyncio.to_thread(_message, body, kind))


class _Read(Request):
    """A request whose body was read and checked already."""

    def __init__(self, request: Request, body: bytes, message: BaseModel) -> None:
        super().__init__(request.scope, request.receive)
        self._bytes = body
        self._message = message

    async def body(self) -> bytes:
        """The bytes, as they came."""
        return self._bytes

    async def json(self) -> Any:
        """The message, which is valid as what the route takes."""
        return self._message


def _message(body: bytes, kind: type[BaseModel]) -> BaseModel:
    """Raises what FastAPI raises for such a body."""
    try:
        document = json.loads(body)
    except json.JSONDecodeError as error:
        raise MalformedJson(error.msg, error.pos) from None
    except (ValueError, RecursionError) as error:
        raise HTTPException(400) from error
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        if error.error_count() > MOST_ERRORS:
            raise TooManyErrors(error_count=error.error_count()) from None
        details = [{**detail, "loc": ("body", *detail["loc"])} for detail in error.errors(include_url=False)]
        raise RequestValidationError(details, body=document) from error
