"""Answers that go on for hours: what opened them is asked about again before each part that they send."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from starlette.types import Message, Send

IsAdmitted = Callable[[], Awaitable[bool]]


class NoLongerAdmitted(Exception):
    """The credentials of a stream were revoked or expired; its answer has been ended."""


def send_while(is_admitted: IsAdmitted, pause_seconds: float, send: Send) -> Send:
    """`send`, which ends a streamed answer in good order once `is_admitted` says no.

    It is asked no more often than every `pause_seconds`. What is sent raises NoLongerAdmitted then. The
    client's next request is the one that is told why.
    """
    asked_at = time.monotonic()

    async def send_asked(message: Message) -> None:
        nonlocal asked_at
        if message.get("more_body") and time.monotonic() - asked_at >= pause_seconds:
            if not await is_admitted():
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                raise NoLongerAdmitted
            asked_at = time.monotonic()
        await send(message)

    return send_asked
