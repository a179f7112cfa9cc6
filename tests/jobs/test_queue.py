"""Transitions outside an attempt, as docs/decisions/0003-jobs-and-attempts.md has them."""

from __future__ import annotations

import pytest

from planner_service.jobs import (
    JobEnded,
    JobNotQueued,
    Reason,
    Standing,
    State,
    assign,
    cancel,
    expire,
    give_up,
    refuse,
)
from tests.jobs.standings import assigned, queued, running

ENDED = [State.SUCCEEDED, State.FAILED, State.CANCELLED]


def ended(state: State) -> Standing:
    return running().ended(state)


def test_assigning_counts_the_handovers_and_renews_the_lease():
    standing = queued()
    for number in (1, 2, 3):
        given = assign(standing, launch_hash="h", node="n").standing
        assert (given.state, given.node, given.handovers, given.launch_hash) == (
            State.ASSIGNED,
            "n",
            number,
            "h",
        )
        assert given.renewals > standing.renewals
        standing = expire(given).standing


@pytest.mark.parametrize("standing", [assigned(), running(), *map(ended, ENDED)], ids=lambda s: s.state)
def test_only_a_queued_job_can_be_assigned(standing):
    with pytest.raises(JobNotQueued, match=standing.state):
        assign(standing, launch_hash="h")


def test_an_assigned_job_nobody_begins_goes_back_and_its_launch_token_dies():
    back = expire(assigned()).standing
    assert (back.state, back.reason, back.launch_hash) == (State.QUEUED, Reason.NODE_LOST, None)
    assert back.failures == 0


def test_a_silent_attempt_goes_back_to_the_queue_free_of_charge_and_stays_the_current_one():
    lost = running()
    back = expire(lost).standing
    assert (back.state, back.reason, back.failures) == (State.QUEUED, Reason.NODE_LOST, lost.failures)
    assert (back.attempt, back.attempt_open) == (lost.attempt, True)


def test_a_schedulers_job_waits_in_the_scheduler_however_long():
    waiting = assigned(engine="slurm")
    assert expire(waiting).standing == waiting


def test_a_schedulers_silent_job_is_the_schedulers_to_repeat_with_the_same_launch_token():
    lost = running(engine="slurm")
    back = expire(lost).standing
    assert (back.state, back.reason, back.launch_hash) == (
        State.ASSIGNED,
        Reason.NODE_LOST,
        lost.launch_hash,
    )


@pytest.mark.parametrize("standing", [assigned(engine="slurm"), running(engine="slurm"), running()])
def test_what_an_engine_gives_up_is_queued_again_free_of_charge(standing):
    back = give_up(standing, "the node burnt").standing
    assert (back.state, back.reason, back.detail) == (State.QUEUED, Reason.NODE_LOST, "the node burnt")
    assert (back.failures, back.launch_hash, back.engine_reference) == (standing.failures, None, None)


@pytest.mark.parametrize("standing", [queued(), *map(ended, ENDED)], ids=lambda s: s.state)
def test_giving_up_or_losing_what_nobody_has_changes_nothing(standing):
    assert give_up(standing, "").standing == expire(standing).standing == standing


@pytest.mark.parametrize("standing", [queued(), assigned(), assigned(engine="slurm")])
def test_what_does_not_run_is_cancelled_at_once(standing):
    change = cancel(standing)
    assert (change.standing.state, change.standing.reason) == (State.CANCELLED, Reason.CANCELLED)
    assert change.standing.launch_hash is None
    assert change.events == ("state",)


def test_a_running_job_is_asked_to_stop_and_asking_again_changes_nothing():
    asked = cancel(running())
    assert (asked.standing.state, asked.standing.cancel_requested) == (State.RUNNING, True)
    assert asked.events == ("cancel_requested",)
    assert cancel(asked.standing).standing == asked.standing
    assert cancel(asked.standing).events == ()


@pytest.mark.parametrize("engine", ["agents", "slurm"])
def test_a_worker_that_is_lost_while_it_should_stop_ends_the_job(engine):
    asked = cancel(running(engine=engine)).standing
    assert expire(asked).standing.state is State.CANCELLED
    assert give_up(asked, "gone").standing.state is State.CANCELLED


def test_a_cancelled_job_stays_cancelled_and_another_end_is_told():
    cancelled = ended(State.CANCELLED)
    assert cancel(cancelled).standing == cancelled
    for state in (State.SUCCEEDED, State.FAILED):
        with pytest.raises(JobEnded, match=state):
            cancel(ended(state))


@pytest.mark.parametrize("standing", [queued(), assigned()], ids=lambda s: s.state)
def test_a_job_that_its_engine_refuses_for_good_has_failed(standing):
    after = refuse(standing, "no such partition").standing
    assert (after.state, after.reason, after.detail) == (State.FAILED, Reason.ERROR, "no such partition")
    assert after.launch_hash is None


@pytest.mark.parametrize("standing", [running(), *map(ended, ENDED)], ids=lambda s: s.state)
def test_a_refusal_changes_nothing_where_somebody_is_at_it_or_it_has_ended(standing):
    assert refuse(standing, "too late").standing == standing
