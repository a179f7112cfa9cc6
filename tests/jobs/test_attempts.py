"""Transitions of an attempt, as docs/decisions/0003-jobs-and-attempts.md has them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner_service.jobs import (
    AttemptEnded,
    AttemptResult,
    JobNotAssigned,
    Outcome,
    Reason,
    StaleAttempt,
    Standing,
    State,
    UnknownAttempt,
    assign,
    cancel,
    end_attempt,
    expire,
    open_attempt,
    renew,
)
from tests.jobs.standings import assigned, queued, running

OUTCOMES = list(Outcome)


def beat(standing: Standing, number: int = 1, *, iteration: int = 5, loss: float | None = 1.5):
    return renew(standing, number, node="a", iteration=iteration, loss=loss)


def end(standing: Standing, outcome: Outcome, number: int = 1, **fields: object):
    return end_attempt(standing, number, AttemptResult(outcome=outcome, **fields))


def test_every_opening_gives_the_next_number_and_makes_the_former_stale():
    standing = assigned()
    for number in (1, 2, 3):
        standing = open_attempt(standing).standing
        assert (standing.attempt, standing.state) == (number, State.RUNNING)
        for older in range(1, number):
            with pytest.raises(StaleAttempt, match=f"attempt {older} was replaced by attempt {number}"):
                beat(standing, older)
            with pytest.raises(StaleAttempt):
                end(standing, Outcome.SUCCEEDED, older)


@pytest.mark.parametrize("standing", [queued(), running().ended(State.FAILED)], ids=lambda s: s.state)
def test_no_attempt_is_opened_at_a_job_that_nobody_was_given(standing):
    with pytest.raises(JobNotAssigned, match=standing.state):
        open_attempt(standing)


def test_a_launch_token_that_lapsed_is_refused_for_that_and_not_for_the_state():
    """The store refuses it at a running job: an earlier attempt took the job back"""
    lapsed = str(JobNotAssigned(state=State.RUNNING))
    assert "an earlier attempt" in lapsed
    assert "only an assigned or running job" not in lapsed


def test_a_number_that_was_never_given_out_is_unknown():
    with pytest.raises(UnknownAttempt, match="no attempt 2: the last one is 1"):
        beat(running(), 2)


def test_a_heartbeat_renews_the_lease_and_tells_how_far():
    before = running()
    change = beat(before)
    after = change.standing
    assert after.renewals == before.renewals + 1
    assert (after.iteration, after.loss, change.events) == (5, 1.5, ("progress",))
    assert beat(after).events == ()  # alive, and no further


def test_a_late_heartbeat_takes_the_job_back_from_the_queue():
    back = beat(expire(running()).standing)
    assert (back.standing.state, back.standing.node, back.standing.reason) == (State.RUNNING, "a", None)
    assert "state" in back.events


def test_a_late_heartbeat_takes_the_job_back_from_who_has_not_begun_and_voids_that_launch_token():
    given = assign(expire(running()).standing, launch_hash="another", node="b").standing
    back = beat(given).standing
    assert (back.state, back.node, back.launch_hash) == (State.RUNNING, "a", None)


def test_a_late_heartbeat_leaves_a_scheduler_its_launch_token():
    lost = expire(running(engine="slurm")).standing
    assert beat(lost).standing.launch_hash == lost.launch_hash


@pytest.mark.parametrize("lose", [lambda s: s, lambda s: expire(s).standing], ids=["in time", "late"])
def test_a_report_of_the_current_attempt_is_accepted_late_or_not(lose):
    done = end(lose(running()), Outcome.SUCCEEDED, iteration=9, loss=0.5, measurement_id="m").standing
    assert done.state is State.SUCCEEDED
    assert (done.iteration, done.loss, done.measurement_id) == (9, 0.5, "m")


def test_a_late_report_is_accepted_though_the_job_was_given_to_another_who_has_not_begun():
    given = assign(expire(running()).standing, launch_hash="another", node="b").standing
    done = end(given, Outcome.SUCCEEDED).standing
    assert (done.state, done.launch_hash) == (State.SUCCEEDED, None)


@pytest.mark.parametrize("second", OUTCOMES)
def test_an_attempt_reports_once(second):
    ended = end(running(), Outcome.PREEMPTED).standing
    with pytest.raises(AttemptEnded):
        end(ended, second)
    with pytest.raises(AttemptEnded):
        beat(ended)


def test_errors_are_retried_as_often_as_allowed():
    standing = queued(maximum_failures=2)
    for failures in (1, 2, 3):
        begun = open_attempt(assign(standing, launch_hash="h").standing).standing
        standing = end(begun, Outcome.ERROR, begun.attempt, detail="boom").standing
        assert (standing.failures, standing.reason, standing.detail) == (failures, Reason.ERROR, "boom")
        assert standing.state is (State.QUEUED if failures <= 2 else State.FAILED)


def test_an_error_that_every_attempt_would_end_in_is_not_tried_again():
    failed = end(running(), Outcome.ERROR, is_permanent=True, detail="no such text").standing
    assert (failed.state, failed.reason, failed.failures) == (State.FAILED, Reason.ERROR, 1)


def test_lost_nodes_and_preemptions_are_free():
    standing = queued(maximum_failures=0)
    for _ in range(5):
        begun = open_attempt(assign(standing, launch_hash="h").standing).standing
        standing = end(begun, Outcome.PREEMPTED, begun.attempt).standing
        assert (standing.state, standing.reason) == (State.QUEUED, Reason.PREEMPTED)
        begun = open_attempt(assign(standing, launch_hash="h").standing).standing
        standing = expire(begun).standing
    assert (standing.state, standing.failures) == (State.QUEUED, 0)


def test_a_preempted_job_of_a_scheduler_waits_there():
    waiting = end(running(engine="slurm"), Outcome.PREEMPTED).standing
    assert (waiting.state, waiting.reason) == (State.ASSIGNED, Reason.PREEMPTED)
    assert open_attempt(waiting).standing.attempt == 2


@pytest.mark.parametrize(
    ("excess_bytes", "tightened_bytes"), [(100, 900), (63, 937), (10, 937), (None, 937), (999, 1)]
)
def test_out_of_memory_tightens_the_budget_by_the_excess_or_a_sixteenth(excess_bytes, tightened_bytes):
    change = end(running(), Outcome.OOM, budget_bytes=1000, excess_bytes=excess_bytes)
    again = change.standing
    assert (again.state, again.reason, again.failures) == (State.QUEUED, Reason.OOM, 1)
    assert (again.budget, again.is_tightened) == (tightened_bytes, True)
    assert again.needs.cpu.needed_bytes == 100 + tightened_bytes  # what is held, and the budget
    assert change.events == ("budget", "state")


def test_out_of_memory_never_asks_for_a_bigger_machine():
    standing = queued(maximum_failures=9)
    for _ in range(9):
        begun = open_attempt(assign(standing, launch_hash="h").standing).standing
        after = end(begun, Outcome.OOM, begun.attempt, budget_bytes=begun.budget).standing
        assert after.needs.cuda.needed_bytes < standing.needs.cuda.needed_bytes
        standing = after


@pytest.mark.parametrize("budget", ["free", "5%"])
def test_a_budget_that_was_no_number_becomes_the_one_that_the_attempt_ran_under(budget):
    told = end(running(budget=budget), Outcome.OOM, budget_bytes=800, excess_bytes=100).standing
    assert told.budget == 700
    untold = end(running(budget=budget), Outcome.OOM, excess_bytes=100).standing
    assert untold.budget == 900  # granted: 1000


def test_a_budget_that_cannot_be_tightened_fails_the_job():
    failed = end(running(), Outcome.OOM, budget_bytes=1).standing
    assert (failed.state, failed.reason) == (State.FAILED, Reason.OOM)


def test_where_the_excess_leaves_nothing_the_next_worker_is_asked_for_the_least():
    asked = end(running(), Outcome.OOM, budget_bytes=1000, excess_bytes=5000).standing
    assert (asked.state, asked.budget, asked.failures) == (State.QUEUED, 1, 1)


def tightened_until_refused(minimum_bytes):
    """A budget of 1000 that ran out, and the refusal of what it was tightened to."""
    tighter = end(running(), Outcome.OOM, budget_bytes=1000, excess_bytes=600).standing
    begun = open_attempt(assign(tighter, launch_hash="h").standing).standing
    return end(begun, Outcome.ERROR, begun.attempt, minimum_budget_bytes=minimum_bytes)


def test_a_budget_tightened_below_the_least_is_followed_by_the_least_where_that_is_below_what_ran_out():
    change = tightened_until_refused(minimum_bytes=700)
    again = change.standing
    assert (again.state, again.reason, again.budget) == (State.QUEUED, Reason.OOM, 700)
    assert again.failures == 1  # the one that ran out: a refusal of our own guess is none of the job's
    assert again.needs.cpu.needed_bytes == 100 + 700
    assert change.events == ("budget", "state")


@pytest.mark.parametrize("minimum_bytes", [1000, 1001])
def test_there_is_no_further_attempt_where_the_least_is_no_less_than_what_ran_out(minimum_bytes):
    failed = tightened_until_refused(minimum_bytes).standing
    assert (failed.state, failed.reason, failed.failures) == (State.FAILED, Reason.OOM, 2)


def test_the_least_that_runs_out_too_is_the_end():
    """Whatever workers say, attempts come to an end: every refusal is below what ran out before it"""
    standing = tightened_until_refused(minimum_bytes=700).standing
    begun = open_attempt(assign(standing, launch_hash="h").standing).standing
    standing = end(begun, Outcome.OOM, begun.attempt, budget_bytes=700).standing
    begun = open_attempt(assign(standing, launch_hash="h").standing).standing
    failed = end(begun, Outcome.ERROR, begun.attempt, minimum_budget_bytes=700).standing
    assert (failed.state, failed.reason) == (State.FAILED, Reason.OOM)


def test_an_unknown_budget_cannot_be_tightened():
    lost = replace(running(budget="free"), granted_bytes=None)
    assert end(lost, Outcome.OOM).standing.state is State.FAILED


@pytest.mark.parametrize(("tightened", "reason"), [(True, Reason.OOM), (False, Reason.ERROR)])
def test_a_refused_budget_fails_the_job_at_once(tightened, reason):
    refused = end(running(is_tightened=tightened), Outcome.ERROR, minimum_budget_bytes=5000).standing
    assert (refused.state, refused.reason) == (State.FAILED, reason)


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_job_that_is_asked_to_stop_ends_however_its_worker_ends(outcome):
    done = end(cancel(running()).standing, outcome).standing
    assert done.state is (State.SUCCEEDED if outcome is Outcome.SUCCEEDED else State.CANCELLED)
    assert not done.cancel_requested


def test_a_worker_that_stops_unasked_gives_the_job_back():
    given_back = end(running(), Outcome.CANCELLED).standing
    assert (given_back.state, given_back.reason) == (State.QUEUED, Reason.PREEMPTED)


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_what_is_final_stays_so_and_takes_the_measurement(outcome):
    cancelled = expire(cancel(running()).standing).standing
    assert beat(cancelled).standing == cancelled
    after = end(cancelled, outcome, measurement_id="m").standing
    assert (after.state, after.measurement_id, after.attempt_open) == (State.CANCELLED, "m", False)
