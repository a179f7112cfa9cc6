"""The first request, by the service itself: FastAPI builds its routes when they are first looked through.

That takes a tenth of a second in which nobody is answered, so it is done before anybody asks.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Scope

_SCOPE: Scope = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/healthz",  # of the last router, and open to all
    "raw_path": b"/healthz",
    "query_string": b"",
    "root_path": "",
    "headers": [],
    "client": None,
    "server": None,
}


async def rehearse(app: ASGIApp) -> None:
    """Ask `app` whether it is alive, as a client would."""

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_message: Message) -> None:
        """Nobody listens."""

    await app({**_SCOPE, "state": {}}, receive, send)
