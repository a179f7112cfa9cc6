"""Transitions outside an attempt: into somebody's hands, back to the queue, cancelled."""

from __future__ import annotations

from dataclasses import replace

from planner_service.jobs.errors import JobEnded, JobNotQueued
from planner_service.jobs.standing import Change, Reason, Standing, State


def assign(
    standing: Standing,
    *,
    launch_hash: str,
    node: str | None = None,
    granted_bytes: int | None = None,
    engine_reference: str | None = None,
) -> Change:
    """Give a queued job to a node, or to an engine. Raises JobNotQueued."""
    if standing.state is not State.QUEUED:
        raise JobNotQueued(state=standing.state)
    after = replace(
        standing,
        state=State.ASSIGNED,
        reason=None,
        detail=None,
        node=node,
        engine_reference=engine_reference,
        handovers=standing.handovers + 1,
        launch_hash=launch_hash,
        granted_bytes=granted_bytes,
        renewals=standing.renewals + 1,
    )
    return Change.between(standing, after)


def expire(standing: Standing) -> Change:
    """The lease ran out: nobody opened the assigned job, or its worker has been silent.

    The current attempt stays the current one: it may come back until another one is opened.
    """
    if standing.state is State.ASSIGNED:
        if standing.waits_in_a_scheduler:
            return Change(standing)
        detail = f"node {standing.node} was given the job and opened no attempt in time"
    elif standing.state is State.RUNNING:
        detail = f"attempt {standing.attempt} on node {standing.node} has been silent"
    else:
        return Change(standing)
    if standing.cancel_requested:
        return Change.between(standing, standing.ended(State.CANCELLED, Reason.CANCELLED, detail))
    return Change.between(standing, standing.waiting_again(Reason.NODE_LOST, detail))


def give_up(standing: Standing, detail: str) -> Change:
    """The engine says that it will not run the job any more: back to our queue, free of charge."""
    if standing.state not in {State.ASSIGNED, State.RUNNING}:
        return Change(standing)
    if standing.cancel_requested:
        return Change.between(standing, standing.ended(State.CANCELLED, Reason.CANCELLED, detail))
    return Change.between(standing, standing.queued_again(Reason.NODE_LOST, detail))


def refuse(standing: Standing, detail: str) -> Change:
    """The engine will never run the job as it stands: failed, unless somebody is at it or it has ended."""
    if standing.state not in {State.QUEUED, State.ASSIGNED}:
        return Change(standing)
    return Change.between(standing, standing.ended(State.FAILED, Reason.ERROR, detail))


def cancel(standing: Standing) -> Change:
    """Stop the job: at once where nothing runs, else by its worker's next heartbeat. Raises JobEnded."""
    if standing.state is State.CANCELLED or standing.cancel_requested:
        return Change(standing)
    if standing.is_final:
        raise JobEnded(state=standing.state)
    if standing.state is State.RUNNING:
        return Change(replace(standing, cancel_requested=True), ("cancel_requested",))
    detail = f"cancelled while {standing.state}"
    return Change.between(standing, standing.ended(State.CANCELLED, Reason.CANCELLED, detail))
