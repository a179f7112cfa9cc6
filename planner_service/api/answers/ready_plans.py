"""Plans that are in memory, by id: the request that schedulers make most, answered before any routing.

It stands behind the gate and the counting, and says what the route says; whatever is not a plain read of
a plan in memory goes on to the route.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from planner_service.api.answers.caching import IMMUTABLE, etag
from planner_service.api.routes.plans import read_plan

_PREFIX = "/v1/plans/"
_JSON = (b"content-type", b"application/json")
_IMMUTABLE = (b"cache-control", IMMUTABLE.encode())


class ReadyPlans:
    """Answers `GET /v1/plans/{plan_id}` where the answer lies ready and the caller has none."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        reply = _ready_reply(scope) if scope["type"] == "http" else None
        if reply is None:
            await self._app(scope, receive, send)
            return
        scope["endpoint"] = read_plan  # what the figures and the log call this
        head = [
            (b"content-length", b"%d" % len(reply)),
            _JSON,
            (b"etag", etag(scope["path"][len(_PREFIX) :]).encode()),
            _IMMUTABLE,
        ]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": reply})


def _ready_reply(scope: Scope) -> bytes | None:
    path: str = scope["path"]
    if scope["method"] != "GET" or not path.startswith(_PREFIX) or _is_conditional(scope):
        return None
    reply: bytes | None = scope["app"].state.service.plans.ready(path[len(_PREFIX) :])
    return reply


def _is_conditional(scope: Scope) -> bool:
    return any(name == b"if-none-match" for name, _ in scope["headers"])
