"""Work beside the requests, which nobody waits for and nobody would miss if it ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

PAUSE_SECONDS = 5.0


async def kept_going(run: Callable[[], Awaitable[None]]) -> None:
    """`run()`, begun again after a fault: a system that has no thread or no memory for a moment would end
    the keeping of leases without a word, and silent workers would never be missed again.
    """
    while True:
        try:
            return await run()
        except Exception:
            details = {"action": "background_work_failed", "work": getattr(run, "__qualname__", repr(run))}
            log.exception("background work failed and begins again", extra=details)
        await asyncio.sleep(PAUSE_SECONDS)
