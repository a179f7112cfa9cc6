"""Forgets what is past its retention, now and every hour: a batch at a time, so that nobody waits for it.

One statement over a year's rows would hold SQLite's lock for minutes, and PostgreSQL would end it unfinished
at the limit of its statements, every hour anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

log = logging.getLogger(__name__)

ROUND_SECONDS = 3600
PAUSE_SECONDS = 0.2
"""Between two batches: SQLite gives its lock to whoever asks just then, and others that write ask seldom."""


@dataclass(frozen=True, kw_only=True)
class Retention:
    """How long one kind of thing is kept."""

    what: str
    age_seconds: float | None
    """None: for ever."""
    delete_batch: Callable[[float], int]
    """Deletes some of what is older; how many, 0 when there is no more. Blocks."""
    afterwards: Callable[[], None] = lambda: None
    """Called after every batch: this service or another may have deleted something."""


async def forget_what_is_old(retentions: Iterable[Retention]) -> None:
    """Until cancelled, or at once where everything is kept."""
    limited = [retention for retention in retentions if retention.age_seconds is not None]
    while limited:
        for retention in limited:
            await _forget(retention)
        await asyncio.sleep(ROUND_SECONDS)


async def _forget(retention: Retention) -> None:
    count, what = 0, retention.what
    try:
        while deleted := await asyncio.to_thread(retention.delete_batch, retention.age_seconds or 0.0):
            count += deleted
            retention.afterwards()
            await asyncio.sleep(PAUSE_SECONDS)
    except SQLAlchemyError as error:  # the next round may find the database again
        log.warning("old %s not deleted: %s", what, error, extra={"action": f"{what}_not_deleted"})
        return
    retention.afterwards()
    log.info("old %s deleted", what, extra={"action": f"{what}_deleted", "count": count})
