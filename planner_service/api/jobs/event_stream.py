"""A job's events as they happen, as server-sent events.

Events are read from the store as they come, so it does not matter which process of the service
wrote them; a client that comes back sends the last id that it has seen, and misses nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from sqlalchemy.exc import SQLAlchemyError

from planner_service.api.errors import StorageStalled
from planner_service.api.storage import stored
from planner_service.jobs import UnknownJob
from planner_service.store import EventsAfter

log = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 15.0
RETRY_MILLISECONDS = 2000
BATCH_EVENTS = 200

ReadAfter = Callable[[int], EventsAfter]
"""Events after a number; blocks."""
HasMore = Callable[[int], Awaitable[bool]]
"""Waits for the next look; whether it is worth reading what comes after a number (see `EventWatch`)."""


async def event_stream(
    read_after: ReadAfter, last_number: int, is_stopping: Callable[[], bool], has_more: HasMore
) -> AsyncIterator[bytes]:
    """The events after `last_number` in the form of the stream, until the job is over or forgotten.

    A comment every KEEP_ALIVE_SECONDS keeps proxies from closing a silent connection. While the database is
    away the stream is silent.
    """
    yield f"retry: {RETRY_MILLISECONDS}\n\n".encode()
    spoke_at = time.monotonic()
    while not is_stopping():
        try:
            found = await stored(read_after, last_number)
        except UnknownJob:
            return  # the client's next request is told
        except (SQLAlchemyError, StorageStalled) as error:
            log.warning("events not read: %s", error, extra={"action": "events_not_read"})
            found = EventsAfter([], is_over=False)
        for number, kind, event in found.events:
            yield b"id: %d\nevent: %s\ndata: %s\n\n" % (number, kind.encode(), event)
            last_number, spoke_at = number, time.monotonic()
        if found.is_over:
            return
        has_more_now = bool(found.events)
        while not has_more_now and not is_stopping():
            has_more_now = await has_more(last_number)
            if time.monotonic() - spoke_at >= KEEP_ALIVE_SECONDS:
                yield b": still here\n\n"
                spoke_at = time.monotonic()
