"""The last word to requests that a stopping service could not finish: a problem document, not a bare 500."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from planner_service.api.errors import ShuttingDown
from planner_service.api.handlers import problem_response


class Farewell:
    """Answers a request that the server cancels; one whose answer has begun just ends."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def send_noted(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        except asyncio.CancelledError:
            if not has_begun:
                await problem_response(Request(scope), ShuttingDown())(scope, receive, send)
