"""How a job stands: everything that a transition reads or changes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal, Self

from planner_service.jobs.needs import JobNeeds


class State(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    ASSIGNED = "assigned"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Reason(StrEnum):
    """Why a job ended other than by success, or why it is queued again."""

    OOM = "oom"
    NODE_LOST = "node_lost"
    PREEMPTED = "preempted"
    ERROR = "error"
    CANCELLED = "cancelled"


FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})
LIVE = frozenset({State.ASSIGNED, State.RUNNING})
SCHEDULERS = frozenset({"slurm", "ray", "kubernetes"})
"""Engines with a queue of their own: how long a job waits there is theirs to know."""

EventKind = Literal["state", "progress", "cancel_requested", "budget"]


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One job as it stands. Transitions return a new one."""

    engine: str
    maximum_failures: int
    needs: JobNeeds
    budget: int | str
    """Bytes, "5%" or "free"; bytes once an attempt ran out of memory."""
    is_tightened: bool = False
    """The budget is no longer the one that was asked for."""
    state: State = State.QUEUED
    reason: Reason | None = None
    detail: str | None = None
    cancel_requested: bool = False
    handovers: int = 0
    """How often the job was given to a node or an engine."""
    attempt: int = 0
    """Number of the current attempt; 0 before the first."""
    attempt_open: bool = False
    """The current attempt has not reported its end; it may be silent all the same."""
    failures: int = 0
    node: str | None = None
    engine_reference: str | None = None
    launch_hash: str | None = None
    """SHA-256 of the token that may open attempts; None when nobody may."""
    granted_bytes: int | None = None
    """What the budget comes to on the assigned node, as far as the service can tell."""
    exhausted_bytes: int | None = None
    """The budget that ran out of memory last; None before any did."""
    renewals: int = 0
    """Grows whenever somebody shows that the job is looked after; see `leases`."""
    iteration: int = 0
    loss: float | None = None
    measurement_id: str | None = None

    @property
    def is_final(self) -> bool:
        """Whether nothing will happen to the job any more."""
        return self.state in FINAL

    @property
    def waits_in_a_scheduler(self) -> bool:
        """Whether the engine has a queue of its own and repeats what it loses."""
        return self.engine in SCHEDULERS

    def ended(self, state: State, reason: Reason | None = None, detail: str | None = None) -> Self:
        """The job in a final state."""
        return replace(
            self,
            state=state,
            reason=reason,
            detail=detail,
            cancel_requested=False,
            launch_hash=None,
            granted_bytes=None,
        )

    def queued_again(self, reason: Reason, detail: str | None) -> Self:
        """Back in the queue; whoever had been given it has no right to it any more."""
        return replace(
            self,
            state=State.QUEUED,
            reason=reason,
            detail=detail,
            launch_hash=None,
            granted_bytes=None,
            engine_reference=None,
        )

    def waiting_again(self, reason: Reason, detail: str | None) -> Self:
        """Where the next attempt will come from: our queue, or that of a scheduler, which repeats."""
        if not self.waits_in_a_scheduler:
            return self.queued_again(reason, detail)
        return replace(self, state=State.ASSIGNED, reason=reason, detail=detail)


@dataclass(frozen=True)
class Change:
    """A transition's result: the new standing, and the events that tell of it."""

    standing: Standing
    events: tuple[EventKind, ...] = ()

    @classmethod
    def between(cls, before: Standing, after: Standing, *further: EventKind) -> Self:
        """`after`, with a `state` event when the state differs."""
        moved: tuple[EventKind, ...] = ("state",) if before.state != after.state else ()
        return cls(after, (*further, *moved))
