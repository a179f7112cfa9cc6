"""The limits on request bodies: so many bytes, and as they are.

FastAPI's own (`max_body_size`) answers in plain text when the length is declared; this one refuses
inside the route, like everything else, so that the refusal becomes a problem document.
"""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_KEY = "tightfit.most_body_bytes"


def limit_body(scope: Scope, most_bytes: int | None) -> None:
    """Take no more than `most_bytes` of this request's body; None: no less than of any other."""
    if most_bytes is not None:
        scope[_KEY] = most_bytes


def most_body_bytes(scope: Scope, maximum_bytes: int) -> int:
    """The limit of this request, where that of the service is `maximum_bytes`."""
    own: int = scope.get(_KEY, maximum_bytes)
    return min(maximum_bytes, own)


class BodyLimit:
    """Hands a route at most `maximum_bytes` of body; more is refused with 413, compressed bytes with 415."""

    def __init__(self, app: ASGIApp, maximum_bytes: int) -> None:
        self._app = app
        self._maximum_bytes = maximum_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        maximum_bytes = most_body_bytes(scope, self._maximum_bytes)
        declared_bytes = _declared_bytes(scope)
        is_compressed = _is_compressed(scope)
        received_bytes = 0

        async def receive_limited() -> Message:
            nonlocal received_bytes
            if declared_bytes > maximum_bytes:  # refused before a byte of it is read
                raise HTTPException(413)
            message = await receive()
            if is_compressed and message.get("body"):
                raise HTTPException(415)
            received_bytes += len(message.get("body", b""))
            if received_bytes > maximum_bytes:
                raise HTTPException(413)
            return message

        await self._app(scope, receive_limited, send)


def _declared_bytes(scope: Scope) -> int:
    """The Content-Length, or 0 where there is none (a chunked body)."""
    return next((int(value) for name, value in scope["headers"] if name == b"content-length"), 0)


def _is_compressed(scope: Scope) -> bool:
    """Whether a content coding is declared; nothing here undoes one."""
    codings = [value.strip().lower() for name, value in scope["headers"] if name == b"content-encoding"]
    return any(coding not in {b"", b"identity"} for coding in codings)
