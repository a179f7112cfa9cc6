"""Attempts on the wire: one worker's try at a job, fenced by its number and its token (v1)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from planner_service.contract.base import Answer, Message
from planner_service.contract.jobs import Job
from planner_service.contract.measurements import MeasurementReport
from planner_service.contract.quantities import BudgetBytes, SizeBytes
from planner_service.contract.texts import Name, StorableText

AttemptOutcome = Literal["succeeded", "oom", "error", "preempted", "cancelled"]

HEARTBEAT_SECONDS = 15
LOST_AFTER_SECONDS = 180
LEASE_SECONDS = 60

MAXIMUM_DETAIL_CHARACTERS = 4_000
MAXIMUM_LINES = 1_000
MAXIMUM_LINE_CHARACTERS = 4_000

Detail = Annotated[StorableText, Field(max_length=MAXIMUM_DETAIL_CHARACTERS)]
Iteration = Annotated[int, Field(strict=True, ge=0, le=10**12)]
Loss = Annotated[float, Field(allow_inf_nan=False)]


class AttemptRequest(Message):
    """POST /v1/jobs/{id}/attempts: a worker starts. Bearer token: the launch token."""

    node: Name | None = None
    """Where the worker runs; null keeps the node that the job was assigned to."""
    engine_reference: Name | None = None
    """What the engine calls this run, when an engine started it."""


class Attempt(Answer):
    """The right to work on a job, until a higher number is given out."""

    job: Job
    number: int
    """1, 2, …; everything that this attempt sends carries it."""
    token: str
    """Bearer token of this job and attempt alone. Said once; the service keeps a hash."""
    heartbeat_seconds: float = HEARTBEAT_SECONDS
    """How often to send a heartbeat."""
    lost_after_seconds: float = LOST_AFTER_SECONDS
    """Without a heartbeat for that long the job goes back to the queue."""


class Heartbeat(Message):
    """POST …/attempts/{n}/heartbeat: alive, and how far."""

    iteration: Iteration = 0
    """Iterations done."""
    loss: Loss | None = None
    """Of the last iteration; null where there is none or it was not finite."""
    memory_used_bytes: SizeBytes | None = None
    """What the worker's process holds on its device now."""
    memory_free_bytes: SizeBytes | None = None
    """What the device has left now."""


class HeartbeatReply(Answer):
    """What the worker is to do."""

    cancel: bool
    """True: stop, send what was measured, report `cancelled`."""


class LogChunk(Message):
    """POST …/attempts/{n}/logs: lines of the worker's log. Sending a line again changes nothing."""

    first_line: Annotated[int, Field(strict=True, ge=1, le=10**9)]
    """The worker's own number of the first of these lines, counted from 1."""
    lines: Annotated[
        list[Annotated[str, Field(max_length=MAXIMUM_LINE_CHARACTERS)]],
        Field(min_length=1, max_length=MAXIMUM_LINES, fail_fast=True),
    ]


class AttemptReport(Message):
    """POST …/attempts/{n}/report: how the attempt ended. Idempotent."""

    outcome: AttemptOutcome
    detail: Detail | None = None
    iteration: Iteration | None = None
    """Iterations done; null leaves what the last heartbeat said."""
    loss: Loss | None = None
    measurement: MeasurementReport | None = None
    """What was measured, whatever the outcome."""
    is_permanent: bool = Field(default=False, exclude_if=lambda permanent: not permanent)
    """Of an `error`: every other attempt would end the same. The job fails without a retry."""
    budget_bytes: BudgetBytes | None = None
    """The budget in bytes that the attempt ran under: what "free" or "5%" came to."""
    excess_bytes: SizeBytes | None = None
    """After `oom`: by how much the attempt went over its budget; the next budget is tighter by it."""
    minimum_budget_bytes: BudgetBytes | None = None
    """After `error`, when the budget was refused: the least that would do. The job fails without a retry,
    unless a larger budget had run out before and was tightened below this."""


class AttemptRecord(Answer):
    """An attempt as the service keeps it."""

    number: int
    node: str | None
    engine_reference: str | None
    opened_at: datetime
    heartbeat_at: datetime
    """When it was last heard of."""
    memory_used_bytes: int | None
    """What it held then."""
    ended_at: datetime | None
    """When it reported; null while it has not, which may be for ever."""
    outcome: AttemptOutcome | None
    detail: str | None
    budget_bytes: int | None
    """The budget in bytes that it ran under, as it reported."""
    excess_bytes: int | None
    """By how much it went over its budget, where memory ran out."""
    measurement_id: str | None


class AttemptList(Answer):
    """Every attempt at a job, the first one first."""

    attempts: list[AttemptRecord]
