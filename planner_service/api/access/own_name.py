"""Pages in a browser on this machine are kept from a service that asks nobody who they are.

Whoever reaches it may do everything, and a page can: its own name may come to mean 127.0.0.1 (DNS rebinding),
which the `Host` of its requests then says; and a POST without a body it may send to any address, naming its
`Origin`.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from planner_service.api.errors import AnotherName
from planner_service.api.handlers import problem_response
from planner_service.loopback import names_this_machine


class OwnName:
    """Answers 421 to requests that do not name this machine, by a loopback address or as localhost."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        named = None if scope["type"] != "http" else _another(scope)
        if named is None:
            await self._app(scope, receive, send)
        else:
            await problem_response(Request(scope), AnotherName(named))(scope, receive, send)


def _another(scope: Scope) -> str | None:
    """What is named that is not this machine. HTTP/1.0 names nothing; browsers do not speak it."""
    for name, value in scope["headers"]:
        if name in {b"host", b"origin"}:
            text = bytes(value).decode("latin-1")
            if not names_this_machine(f"//{text}" if name == b"host" else text):
                return text
    return None
