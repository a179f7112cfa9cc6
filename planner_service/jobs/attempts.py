"""Transitions of an attempt: opened, renewed by heartbeats, ended by its report."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from planner_service.jobs.errors import AttemptEnded, JobNotAssigned, StaleAttempt, UnknownAttempt
from planner_service.jobs.needs import tightened_bytes
from planner_service.jobs.standing import LIVE, Change, Reason, Standing, State


class Outcome(StrEnum):
    """How an attempt ended, as its worker says."""

    SUCCEEDED = "succeeded"
    OOM = "oom"
    ERROR = "error"
    PREEMPTED = "preempted"
    CANCELLED = "cancelled"


@dataclass(frozen=True, kw_only=True)
class AttemptResult:
    """What a worker reports at the end."""

    outcome: Outcome
    detail: str | None = None
    iteration: int | None = None
    loss: float | None = None
    measurement_id: str | None = None
    is_permanent: bool = False
    """An error that every other attempt would end in, too."""
    budget_bytes: int | None = None
    """What the attempt ran under."""
    excess_bytes: int | None = None
    """By how much it went over that."""
    minimum_budget_bytes: int | None = None
    """Set when the worker's planner refused the budget: the least that would do."""


def require_current(standing: Standing, number: int) -> None:
    """Raise StaleAttempt or UnknownAttempt unless `number` is the current attempt's."""
    if number < standing.attempt:
        raise StaleAttempt(attempt=number, current_attempt=standing.attempt)
    if number > standing.attempt:
        raise UnknownAttempt(attempt=number, current_attempt=standing.attempt)


def open_attempt(
    standing: Standing, *, node: str | None = None, engine_reference: str | None = None
) -> Change:
    """The next attempt begins, and every older one is stale. Raises JobNotAssigned.

    Who asks holds the launch token; that is the caller's to check.
    """
    if standing.state not in LIVE:
        raise JobNotAssigned(state=standing.state)
    after = replace(
        standing,
        state=State.RUNNING,
        reason=None,
        detail=None,
        attempt=standing.attempt + 1,
        attempt_open=True,
        node=node or standing.node,
        engine_reference=engine_reference or standing.engine_reference,
        renewals=standing.renewals + 1,
    )
    return Change(after, ("state",))


def renew(standing: Standing, number: int, *, node: str | None, iteration: int, loss: float | None) -> Change:
    """A heartbeat of attempt `number`, which runs on `node`.

    Takes back a job that went to the queue, or to somebody who has not begun, for want of heartbeats.
    Raises StaleAttempt, UnknownAttempt and AttemptEnded.
    """
    require_current(standing, number)
    if not standing.attempt_open:
        raise AttemptEnded(attempt=number)
    if standing.is_final:
        return Change(standing)
    after = replace(
        standing,
        state=State.RUNNING,
        reason=None,
        detail=None,
        node=node,
        launch_hash=standing.launch_hash if _keeps_launch_token(standing) else None,
        renewals=standing.renewals + 1,
        iteration=iteration,
        loss=loss,
    )
    if (iteration, loss) == (standing.iteration, standing.loss):
        return Change.between(standing, after)
    return Change.between(standing, after, "progress")


def _keeps_launch_token(standing: Standing) -> bool:
    """Whether the launch token is still that of this attempt's own node or engine."""
    return standing.state is State.RUNNING or standing.waits_in_a_scheduler


def end_attempt(standing: Standing, number: int, result: AttemptResult) -> Change:
    """The report of attempt `number`, late or not. Raises StaleAttempt, UnknownAttempt, AttemptEnded.

    A job that is final stays as it is; only what was measured is added.
    """
    require_current(standing, number)
    if not standing.attempt_open:
        raise AttemptEnded(attempt=number)
    told = replace(
        standing,
        attempt_open=False,
        iteration=standing.iteration if result.iteration is None else result.iteration,
        loss=standing.loss if result.loss is None else result.loss,
        measurement_id=result.measurement_id or standing.measurement_id,
    )
    if standing.is_final:
        return Change(told)
    if result.outcome is Outcome.SUCCEEDED:
        return Change(told.ended(State.SUCCEEDED, detail=result.detail), ("state",))
    if standing.cancel_requested:
        return Change(told.ended(State.CANCELLED, Reason.CANCELLED, result.detail), ("state",))
    if result.outcome is Outcome.ERROR:
        return _failed(told, result)
    if result.outcome is Outcome.OOM:
        return _out_of_memory(told, result)
    # `cancelled` though nobody asked for it: the worker was told to stop by somebody else.
    return Change(told.waiting_again(Reason.PREEMPTED, result.detail), ("state",))


def _failed(standing: Standing, result: AttemptResult) -> Change:
    """After an error: again, unless that is pointless or has been tried often enough."""
    failed = replace(standing, failures=standing.failures + 1)
    if result.minimum_budget_bytes is not None:
        if result.minimum_budget_bytes < (standing.exhausted_bytes or 0):
            # Tightened further than any plan goes, and some go below what ran out: no failure of the job's.
            return _queued_tighter(standing, result.minimum_budget_bytes, result.detail)
        reason = Reason.OOM if standing.is_tightened else Reason.ERROR
        return Change(failed.ended(State.FAILED, reason, result.detail), ("state",))
    if result.is_permanent or failed.failures > standing.maximum_failures:
        return Change(failed.ended(State.FAILED, Reason.ERROR, result.detail), ("state",))
    return Change(failed.queued_again(Reason.ERROR, result.detail), ("state",))


def _out_of_memory(standing: Standing, result: AttemptResult) -> Change:
    """Again under a tighter budget; failed when it is not known, or it happened too often.

    Where nothing would be left, a byte is: the worker's planner says what is the least.
    """
    failed = replace(standing, failures=standing.failures + 1)
    ran_under = result.budget_bytes or standing.granted_bytes
    if ran_under is None and isinstance(standing.budget, int):
        ran_under = standing.budget
    if failed.failures > standing.maximum_failures or ran_under is None or ran_under <= 1:
        return Change(failed.ended(State.FAILED, Reason.OOM, result.detail), ("state",))
    budget_bytes = max(1, tightened_bytes(ran_under, result.excess_bytes))
    return _queued_tighter(replace(failed, exhausted_bytes=ran_under), budget_bytes, result.detail)


def _queued_tighter(standing: Standing, budget_bytes: int, detail: str | None) -> Change:
    """Back in the queue for want of memory, under this budget."""
    needs = standing.needs.with_budget(budget_bytes)
    tighter = replace(standing, budget=budget_bytes, needs=needs, is_tightened=True)
    return Change(tighter.queued_again(Reason.OOM, detail), ("budget", "state"))
