"""What happened to a job, and what its workers wrote (v1)."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from planner_service.contract.base import Answer
from planner_service.contract.jobs import JobReason, JobState

JobEventKind = Literal["state", "progress", "cancel_requested", "budget"]
"""state: the job changed its state; progress: a heartbeat; budget: tightened after an OOM."""


class JobEvent(Answer):
    """One event of GET /v1/jobs/{id}/events; `number` is the server-sent event's id."""

    number: int
    """1, 2, … of this job, without gaps."""
    kind: JobEventKind
    at: datetime
    state: JobState
    reason: JobReason | None = None
    detail: str | None = None
    attempt: int
    budget: int | str
    iteration: int
    loss: float | None = None


class JobLogLine(Answer):
    """One line that a worker wrote."""

    attempt: int
    line: int
    """The worker's own number of the line, from 1 in every attempt."""
    at: datetime
    text: str


class JobLogPage(Answer):
    """Some lines, the oldest first."""

    lines: list[JobLogLine]
    next_cursor: str | None = None
    """Pass it as `cursor` for the lines after these; null when there are no more yet."""
