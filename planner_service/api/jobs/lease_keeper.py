"""Looks at the live jobs every few seconds and queues again those that nobody looks after."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from planner_service.jobs import Lease, LeaseWatch, State
from planner_service.store import JobQueue

log = logging.getLogger(__name__)

LONGEST_LOOK_SECONDS = 5.0


class LeaseKeeper:
    """Ends leases by the count of this process (see `planner_service.jobs.leases`)."""

    def __init__(
        self,
        queue: JobQueue,
        *,
        lease_seconds: float,
        lost_after_seconds: float,
        on_lost_attempt: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_lost_attempt` is called for every attempt whose lease ends, in whatever thread looks."""
        self._queue = queue
        self._on_lost_attempt = on_lost_attempt
        self.look_seconds = min(LONGEST_LOOK_SECONDS, lease_seconds / 4, lost_after_seconds / 4)
        """Seconds between two looks."""
        self._watch = LeaseWatch(
            assigned_seconds=lease_seconds,
            running_seconds=lost_after_seconds,
            longest_step_seconds=2 * self.look_seconds,
        )

    async def run(self) -> None:
        """Look until cancelled; a database that does not answer makes nobody silent."""
        while True:
            await asyncio.sleep(self.look_seconds)
            try:
                await asyncio.to_thread(self.look, time.monotonic())
            except SQLAlchemyError as error:
                log.warning("leases not looked at: %s", error, extra={"action": "leases_not_read"})

    def look(self, now_seconds: float) -> int:
        """End the leases that have run out at `now_seconds` of a monotonic clock; how many ended."""
        return sum(self._end(lease) for lease in self._watch.observe(self._queue.leases(), now_seconds))

    def _end(self, lease: Lease) -> bool:
        """Whether the lease ended. A fault with one job must not keep the others waiting for ever."""
        details = {"action": "lease_ended", "job": lease.job_id, "attempt": lease.attempt}
        try:
            if not self._queue.expire(lease):
                return False
        except SQLAlchemyError:
            raise
        except Exception:
            log.exception("lease not ended", extra={**details, "action": "lease_not_ended"})
            return False
        if lease.state is State.RUNNING:
            self._on_lost_attempt()
        log.warning("job %s was silent", lease.job_id, extra=details)
        return True
