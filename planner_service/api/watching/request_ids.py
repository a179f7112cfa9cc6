"""A name for every request, in the answer's header, in problem documents and in the log."""

from __future__ import annotations

import re
import secrets
from itertools import count

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "x-request-id"
_HEADER_BYTES = HEADER.encode()
_ACCEPTED = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_KEY = "tightfit.request_id"
_PROCESS = secrets.token_hex(6)
_NUMBERS = count(1)


def request_id(scope: Scope) -> str:
    """The request's id."""
    return str(scope[_KEY])


class RequestIds:
    """Takes over the caller's `X-Request-ID` where it is a plain word, else makes one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        identity = scope[_KEY] = _identity(scope)

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (_HEADER_BYTES, identity.encode())]
            await send(message)

        await self._app(scope, receive, send_named)


def _identity(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == _HEADER_BYTES and _ACCEPTED.fullmatch(value):
            return bytes(value).decode()
    return f"{_PROCESS}{next(_NUMBERS):08x}"
