"""Refusals of the state machine: what was asked for cannot happen to this job any more, or not yet."""

from __future__ import annotations

from planner_service.chain import PlanningError
from planner_service.jobs.standing import LIVE


class JobRefusal(PlanningError):
    """Base of the refusals that a job's or an attempt's standing is the reason for."""


class JobNotQueued(JobRefusal):
    """Somebody else was given the job."""

    def __init__(self, *, state: str) -> None:
        self.state = state
        super().__init__(f"the job is {state}: only a queued job can be assigned")


class JobNotAssigned(JobRefusal):
    """No attempt may be opened: the job is not assigned to whom the launch token was given."""

    def __init__(self, *, state: str) -> None:
        self.state = state
        reason = "only an assigned or running job can be attempted"
        if state in LIVE:  # and nobody's launch token is good for it
            reason = (
                "an earlier attempt, thought lost, has taken it back, and the launch token lapsed with that"
            )
        super().__init__(f"the job is {state}: {reason}; stop")


class JobEnded(JobRefusal):
    """The job has ended, and not by being cancelled."""

    def __init__(self, *, state: str) -> None:
        self.state = state
        super().__init__(f"the job has {state} already: there is nothing to cancel")


class StaleAttempt(JobRefusal):
    """A newer attempt was opened; whoever runs this one is to stop."""

    def __init__(self, *, attempt: int, current_attempt: int) -> None:
        self.attempt = attempt
        self.current_attempt = current_attempt
        super().__init__(f"attempt {attempt} was replaced by attempt {current_attempt}: stop the worker")


class AttemptEnded(JobRefusal):
    """The attempt reported its end before, and differently."""

    def __init__(self, *, attempt: int) -> None:
        self.attempt = attempt
        super().__init__(f"attempt {attempt} has reported how it ended: nothing more is taken from it")


class UnknownAttempt(JobRefusal):
    """The job has no attempt of this number."""

    def __init__(self, *, attempt: int, current_attempt: int) -> None:
        self.attempt = attempt
        self.current_attempt = current_attempt
        super().__init__(f"there is no attempt {attempt}: the last one is {current_attempt}")


class InvalidToken(JobRefusal):
    """The bearer token is missing, or is not that of this job and attempt."""

    def __init__(self) -> None:
        super().__init__("the bearer token is missing, or is none of this job and attempt")


class UnknownJob(JobRefusal):
    """There is no job of this id, or its retention is over."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"no job has the id {job_id!r}")


class UnknownNode(JobRefusal):
    """No node of this name is registered."""

    def __init__(self, node: str) -> None:
        self.node = node
        super().__init__(f"no node is called {node!r}: register it with PUT /v1/nodes/{{name}} first")


class UnknownProbe(JobRefusal):
    """There is no probe of this id, or its retention is over."""

    def __init__(self, probe_id: str) -> None:
        self.probe_id = probe_id
        super().__init__(f"no probe has the id {probe_id!r}")


class IdempotencyKeyReused(JobRefusal):
    """The key was used before, for another request."""

    def __init__(self, *, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(
            f"this Idempotency-Key came with another request before, which made job {job_id}: "
            f"send a new key with a new request"
        )
