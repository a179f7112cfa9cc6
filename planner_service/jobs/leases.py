"""Leases that no wall clock can end: a watcher counts its own seconds of silence.

Every sign of life adds one to a job's `renewals`. A watcher looks at the live jobs now and then, and
remembers on its own monotonic clock since when a job has not changed. So steps of the wall clock do
nothing, several services need not agree on the time, and one that was down has seen nobody silent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from planner_service.jobs.standing import State


@dataclass(frozen=True)
class Lease:
    """A live job as one look at the database found it."""

    job_id: str
    state: State
    attempt: int
    renewals: int


class LeaseWatch:
    """Which leases have run out, by one observer's count. For one thread.

    Time counts only while the observer looks: between two looks at most `longest_step_seconds`, so that
    neither a jump of the clock nor a service that was stopped for an hour makes anybody silent.
    """

    def __init__(
        self, *, assigned_seconds: float, running_seconds: float, longest_step_seconds: float
    ) -> None:
        self._silence_seconds = {State.ASSIGNED: assigned_seconds, State.RUNNING: running_seconds}
        self._longest_step_seconds = longest_step_seconds
        self._last_look_seconds: float | None = None
        self._watched_seconds = 0.0
        self._unchanged_since: dict[Lease, float] = {}

    def observe(self, leases: Iterable[Lease], now_seconds: float) -> list[Lease]:
        """The leases that have been seen unchanged for too long, at `now_seconds` of a clock."""
        now = self._count(now_seconds)
        self._unchanged_since = {lease: self._unchanged_since.get(lease, now) for lease in leases}
        return [
            lease
            for lease, since in self._unchanged_since.items()
            if now - since >= self._silence_seconds[lease.state]
        ]

    def _count(self, now_seconds: float) -> float:
        """Seconds watched so far."""
        if self._last_look_seconds is not None:
            step_seconds = now_seconds - self._last_look_seconds
            self._watched_seconds += min(max(0.0, step_seconds), self._longest_step_seconds)
        self._last_look_seconds = now_seconds
        return self._watched_seconds
