"""One look at the database for all open streams of events, however many watch.

Each stream waits for the next look and reads only when its own job has something new.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

from planner_service.api.errors import StorageStalled
from planner_service.api.storage import stored

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5

CountEvents = Callable[[Collection[str]], Mapping[str, int]]
"""How many events each of these jobs has; blocks."""


class EventWatch:
    """Looks while anybody watches. For the event loop's thread."""

    def __init__(self, count_events: CountEvents) -> None:
        self._count_events = count_events
        self._watched: Counter[str] = Counter()
        self._counts: Mapping[str, int] = {}
        self._next_look = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    @contextmanager
    def watching(self, job_id: str) -> Iterator[None]:
        """Have the job looked at until the end of the block."""
        self._watched[job_id] += 1
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            yield
        finally:
            self._watched[job_id] -= 1
            if not self._watched[job_id]:
                del self._watched[job_id]

    async def has_more(self, job_id: str, number: int) -> bool:
        """Whether the job has events after its event `number`, or is gone, as the next look finds it. Also
        where it has not had so many: who knows more than the database, which may have been restored, is told
        of the job's end all the same.
        """
        await self._next_look.wait()
        return self._counts.get(job_id, number + 1) != number

    async def _look(self) -> None:
        while self._watched:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                self._counts = await stored(self._count_events, list(self._watched))
            except (SQLAlchemyError, StorageStalled) as error:  # streams stay open until it is back
                log.warning("events not looked at: %s", error, extra={"action": "events_not_read"})
            except Exception:  # without the next look, all of them would wait for ever
                log.exception("events not looked at", extra={"action": "events_not_read"})
            look, self._next_look = self._next_look, asyncio.Event()
            look.set()
