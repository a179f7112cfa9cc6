"""Jobs are queued once, given to one, and end once: on SQLite and PostgreSQL."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from planner_service.contract.attempts import AttemptRequest, LogChunk
from planner_service.contract.nodes import ClaimRequest
from planner_service.jobs import (
    AttemptEnded,
    IdempotencyKeyReused,
    InvalidToken,
    JobNotAssigned,
    StaleAttempt,
    UnknownAttempt,
    UnknownJob,
    UnknownNode,
)
from planner_service.store import AttemptCall, JobStore, MeasurementStore, delete_ended_jobs, open_database
from planner_service.store.job_tables import jobs
from tests.store.desk import Desk, call_of, job_request, needs

MEASUREMENT = {
    "job": "j",
    "budget_bytes": 1000,
    "projected_peak_bytes": 900,
    "measured_peak_bytes": 890,
    "seconds_per_iteration": 1,
    "iterations": 3,
    "torch": "2",
    "device": "cpu",
}


def test_a_job_comes_back_whole_from_the_next_process(desk, url):
    job = desk.submit(name="night run", priority=7, budget="5%", maximum_slowdown_ratio=1.5)
    reopened = open_database(url)
    read = JobStore(reopened).get(job.id)
    reopened.dispose()
    assert read == job
    assert (read.name, read.budget, read.request.priority) == ("night run", "5%", 7)


def test_a_life_from_the_queue_to_success_is_told_event_by_event(desk):
    desk.node()
    job = desk.submit()
    attempt = desk.take()
    assert not desk.beat(attempt, iteration=2, loss=1.5)
    done = desk.report(attempt, "succeeded", iteration=3, measurement=MEASUREMENT)
    assert (done.state, done.iteration, done.attempt, done.failures) == ("succeeded", 3, 1, 0)
    assert desk.told(job.id) == [
        ("state", "queued"),
        ("state", "assigned"),
        ("state", "running"),
        ("progress", "running"),
        ("state", "succeeded"),
    ]


def test_a_report_brings_its_measurement_in_the_same_transaction(desk, engine):
    desk.node()
    desk.submit()
    done = desk.report(desk.take(), "succeeded", measurement=MEASUREMENT)
    kept = MeasurementStore(engine).get(done.measurement_id)
    assert kept.measured_peak_bytes == 890


def test_the_more_urgent_job_goes_first_then_the_older(desk):
    desk.node()
    low, old, new, high = (desk.submit(priority=priority).id for priority in (-5, 0, 0, 9))
    assert [desk.claim().job.id for _ in range(4)] == [high, old, new, low]
    assert desk.claim() is None


def test_a_job_that_was_lost_comes_before_younger_ones(desk):
    desk.node()
    first, second = desk.submit().id, desk.submit().id
    assert desk.claim().job.id == first
    desk.lose(first)
    assert [desk.claim().job.id for _ in range(2)] == [first, second]


def test_only_a_job_that_fits_is_given_however_urgent_another_is(desk):
    desk.node()
    desk.submit(needed_bytes=5001, priority=100)
    small = desk.submit(needed_bytes=5000)
    assert desk.claim(free_bytes=4999) is None
    assert desk.claim(free_bytes=5000).job.id == small.id


def test_a_node_is_given_jobs_of_its_kind_of_engine_only(desk):
    desk.node()
    local, slurm = desk.submit(engine="local").id, desk.submit(engine="slurm").id
    assert desk.claim() is None
    both = ClaimRequest(node="a", memory_free_bytes=10_000, engines=("agents", "local"))
    assert desk.queue.claim(both).job.id == local
    assert [job.id for job in desk.queue.queued_for(["slurm"], limit=9)] == [slurm]


def test_a_job_of_a_newer_service_on_the_same_database_is_shown_and_left_to_it(desk, engine):
    """Its further field is not known here: neither a claim nor an engine is given less than was asked for"""
    desk.node()
    newer, known = desk.submit(priority=9).id, desk.submit().id
    given = desk.claim()
    with engine.begin() as connection:
        request = job_request(priority=9).model_dump_json().replace("{", '{"heads": 2, ', 1).encode()
        connection.execute(update(jobs).where(jobs.c.id == newer).values(request=request))
    with pytest.raises(ValueError, match="heads"):
        desk.attempts.open(newer, given.launch_token, AttemptRequest())
    desk.lose(newer)
    assert [job.id for job in desk.queue.queued_for(["agents"], limit=1)] == [known]
    assert desk.claim().job.id == known
    assert desk.claim() is None
    assert {job.id for job in desk.jobs.page(limit=9).jobs} == {newer, known}
    assert desk.jobs.cancel(newer).state == "cancelled"


def test_an_unknown_node_is_given_nothing(desk):
    desk.submit()
    with pytest.raises(UnknownNode):
        desk.claim("nowhere")


def test_an_engine_is_handed_a_job_and_gives_it_up(desk):
    job = desk.submit(engine="slurm")
    first = desk.queue.hand_over(job.id)
    assert desk.queue.note_engine(job.id, "4711", number=1)
    (held,) = desk.queue.live(["slurm"])
    assert (held.job.id, held.job.engine_reference, held.number) == (job.id, "4711", 1)
    assert desk.queue.give_up(job.id, "the node is down", number=1).reason == "node_lost"
    second = desk.queue.hand_over(job.id)
    assert (first.number, second.number) == (1, 2)
    with pytest.raises(InvalidToken):
        desk.open(first)
    assert desk.open(second).number == 1


def test_what_an_engine_says_of_a_former_launch_changes_nothing(desk):
    """Its name came late, or it was given up late: the job is in other hands"""
    job = desk.submit(engine="slurm")
    desk.queue.hand_over(job.id)
    desk.queue.give_up(job.id, "gone", number=1)
    second = desk.queue.hand_over(job.id)
    assert not desk.queue.note_engine(job.id, "4711", number=1)
    assert desk.queue.give_up(job.id, "gone again", number=1).state == "assigned"
    assert desk.queue.note_engine(job.id, "4712", number=2)
    assert desk.open(second).job.engine_reference == "4712"
    desk.jobs.cancel(job.id)
    assert desk.queue.note_engine(job.id, "4712", number=2), "its worker has not heard of it yet"


def test_cancelled_jobs_that_an_engine_was_given_are_found_again(desk):
    waiting, given = desk.submit(engine="slurm"), desk.submit(engine="slurm")
    desk.queue.hand_over(given.id)
    for job in (waiting, given):
        desk.jobs.cancel(job.id)
    assert not desk.queue.note_engine(given.id, "4711", number=1)
    assert [(each.job.id, each.number) for each in desk.queue.cancelled(["slurm"], limit=9)] == [
        (given.id, 1)
    ]


def test_the_same_key_makes_the_same_job_and_another_request_is_refused(desk):
    def submit(key, caller="t", **fields):
        return desk.jobs.submit(
            job_request(**fields), needs(), engine="agents", caller=caller, idempotency_key=key
        )

    first, first_is_new = submit("k")
    again, again_is_new = submit("k")
    assert (first_is_new, again_is_new) == (True, False)
    assert again == first
    with pytest.raises(IdempotencyKeyReused, match=first.id):
        submit("k", priority=1)
    assert submit("k", caller="somebody else")[0].id != first.id
    assert len(desk.jobs.page(limit=9).jobs) == 2


def test_pages_list_every_job_once_the_latest_first(desk):
    ids = [desk.submit().id for _ in range(5)]
    found, cursor = [], None
    while True:
        page = desk.jobs.page(limit=2, before=cursor)
        found += [job.id for job in page.jobs]
        if page.next_cursor is None:
            break
        cursor = int(page.next_cursor)
    assert found == ids[::-1]
    desk.jobs.cancel(ids[3])
    assert [job.id for job in desk.jobs.page(limit=9, state="cancelled").jobs] == [ids[3]]


def test_an_attempt_needs_the_launch_token_of_its_job(desk):
    desk.node()
    desk.submit()
    desk.submit()
    mine, others = desk.claim(), desk.claim()
    for token in (None, "", others.launch_token):
        with pytest.raises(InvalidToken):
            desk.open(mine.model_copy(update={"launch_token": token or ""}))
    assert desk.open(mine).number == 1


def test_an_attempts_token_is_worth_nothing_for_another_job_or_attempt(desk):
    desk.node()
    desk.submit()
    desk.submit()
    first, second = desk.take(), desk.take()
    for wrong in (
        AttemptCall(first.job.id, 1, second.token),
        AttemptCall(first.job.id, 1, None),
        AttemptCall(second.job.id, 1, first.token),
    ):
        with pytest.raises(InvalidToken):
            desk.attempts.report(wrong, _report("succeeded"))
    with pytest.raises(UnknownAttempt):
        desk.attempts.report(AttemptCall(first.job.id, 2, first.token), _report("succeeded"))
    with pytest.raises(UnknownJob):
        desk.attempts.report(AttemptCall("none", 1, first.token), _report("succeeded"))


def _report(outcome: str):
    from planner_service.contract.attempts import AttemptReport

    return AttemptReport(outcome=outcome)


def test_tokens_are_not_in_the_database(desk, engine):
    desk.node()
    desk.submit()
    given = desk.claim()
    attempt = desk.open(given)
    with engine.connect() as connection:
        for table in ("jobs", "attempts", "job_events"):
            rows = str(connection.exec_driver_sql(f"SELECT * FROM {table}").all())  # noqa: S608
            assert given.launch_token not in rows
            assert attempt.token not in rows


def test_a_zombie_is_fenced_from_the_moment_its_successor_begins(desk):
    desk.node()
    job = desk.submit()
    zombie = desk.take()
    desk.lose(job.id)
    successor = desk.take()
    for say in (
        lambda: desk.beat(zombie, iteration=9),
        lambda: desk.report(zombie, "succeeded", measurement=MEASUREMENT),
        lambda: desk.attempts.add_logs(call_of(zombie), LogChunk(first_line=1, lines=["x"])),
    ):
        with pytest.raises(StaleAttempt):
            say()
    assert desk.report(successor, "succeeded").measurement_id is None
    records = desk.history.attempts(job.id)
    assert [(record.number, record.outcome) for record in records] == [(1, None), (2, "succeeded")]


def test_a_late_report_is_accepted_until_a_successor_begins_who_then_finds_the_job_done(desk):
    desk.node()
    job = desk.submit()
    late = desk.take()
    desk.lose(job.id)
    given = desk.claim()
    assert desk.report(late, "succeeded").state == "succeeded"
    with pytest.raises(JobNotAssigned):
        desk.open(given)


def test_a_late_heartbeat_takes_the_job_back_and_voids_the_other_launch_token(desk):
    desk.node()
    desk.node("b")
    job = desk.submit()
    late = desk.take("a")
    desk.lose(job.id)
    given = desk.claim("b")
    assert not desk.beat(late, iteration=1)
    assert desk.jobs.get(job.id).node == "a"
    with pytest.raises(JobNotAssigned):
        desk.open(given)


def test_a_lease_that_was_renewed_since_it_was_read_does_not_end(desk):
    desk.node()
    desk.submit()
    attempt = desk.take()
    (lease,) = desk.queue.leases()
    desk.beat(attempt)
    assert not desk.queue.expire(lease)
    assert desk.jobs.get(attempt.job.id).state == "running"


def test_a_report_that_is_sent_again_is_answered_and_another_is_refused(desk):
    desk.node()
    job = desk.submit()
    attempt = desk.take()
    first = desk.report(attempt, "error", detail="boom")
    assert desk.report(attempt, "error", detail="boom") == first
    assert first.failures == 1
    with pytest.raises(AttemptEnded):
        desk.report(attempt, "succeeded")
    assert len(desk.told(job.id)) == 4


def test_a_worker_that_lost_the_answer_opens_again_with_the_same_launch_token(desk):
    desk.node()
    desk.submit()
    given = desk.claim()
    lost, kept = desk.open(given), desk.open(given)
    assert (lost.number, kept.number) == (1, 2)
    with pytest.raises(StaleAttempt):
        desk.beat(lost)
    assert not desk.beat(kept)


def test_a_cancelled_job_tells_its_worker_and_takes_its_last_measurement(desk):
    desk.node()
    job = desk.submit()
    attempt = desk.take()
    assert desk.jobs.cancel(job.id).cancel_requested
    assert desk.beat(attempt)
    desk.lose(job.id)
    assert desk.jobs.get(job.id).state == "cancelled"
    assert desk.beat(attempt)
    after = desk.report(attempt, "cancelled", measurement=MEASUREMENT)
    assert (after.state, after.measurement_id is not None) == ("cancelled", True)


def test_out_of_memory_tightens_the_budget_and_says_so(desk):
    desk.node()
    job = desk.submit()
    desk.report(desk.take(), "oom", budget_bytes=1000, excess_bytes=200)
    again = desk.jobs.get(job.id)
    assert (again.state, again.reason, again.budget, again.needed_bytes.cpu) == ("queued", "oom", 800, 900)
    assert ("budget", "queued") in desk.told(job.id)
    assert desk.claim(free_bytes=900).job.budget == 800


def test_log_lines_are_kept_once_and_read_in_pages_across_attempts(desk):
    desk.node()
    job = desk.submit()
    first = desk.take()
    desk.attempts.add_logs(call_of(first), LogChunk(first_line=1, lines=["one", "two\0"]))
    desk.attempts.add_logs(call_of(first), LogChunk(first_line=2, lines=["another two", "three"]))
    desk.report(first, "preempted")
    second = desk.take()
    desk.attempts.add_logs(call_of(second), LogChunk(first_line=1, lines=["four"]))
    found, after = [], (0, 0)
    while True:
        page = desk.history.logs(job.id, limit=3, after=after)
        found += [(line.attempt, line.text) for line in page.lines]
        if page.next_cursor is None:
            break
        after = tuple(map(int, page.next_cursor.split(".")))
    assert found == [(1, "one"), (1, "two\ufffd"), (1, "three"), (2, "four")]
    assert len(desk.history.logs(job.id, limit=9, attempt=2).lines) == 1


def test_jobs_that_ended_long_ago_are_forgotten_with_all_that_belongs_to_them(engine):
    clock = [1000.0]
    desk = Desk(engine, clock=lambda: clock[0])
    desk.node()
    key = {"engine": "agents", "caller": "t", "idempotency_key": "k"}
    old, _ = desk.jobs.submit(job_request(), needs(), **key)
    attempt = desk.take()
    desk.attempts.add_logs(call_of(attempt), LogChunk(first_line=1, lines=["x"]))
    desk.report(attempt, "succeeded")
    waiting = desk.submit()
    clock[0] = 5000.0
    ended = desk.jobs.cancel(desk.submit().id)
    assert delete_ended_jobs(engine, 3000, now=clock[0]) == 1
    assert {job.id for job in desk.jobs.page(limit=9).jobs} == {waiting.id, ended.id}
    with pytest.raises(UnknownJob):
        desk.jobs.get(old.id)
    with engine.connect() as connection:
        for table in ("attempts", "job_logs", "idempotency_keys"):
            assert connection.exec_driver_sql(f"SELECT * FROM {table}").all() == []  # noqa: S608
    assert desk.jobs.submit(job_request(), needs(), **key)[1]  # the key went with its job


@pytest.mark.parametrize("jump_seconds", [-1e8, 1e8])
def test_a_jump_of_the_clock_changes_dates_and_nothing_else(engine, jump_seconds):
    clock = [1.7e9]
    desk = Desk(engine, clock=lambda: clock[0])
    desk.node()
    first, second = desk.submit().id, desk.submit().id
    attempt = desk.take()
    clock[0] += jump_seconds
    third = desk.submit().id
    assert not desk.beat(attempt, iteration=1)
    assert len(desk.queue.leases()) == 1
    assert desk.report(attempt, "succeeded").state == "succeeded"
    assert [desk.claim().job.id for _ in range(2)] == [second, third]
    assert [job.id for job in desk.jobs.page(limit=9).jobs] == [third, second, first]
    assert desk.told(first)[-1] == ("state", "succeeded")


def test_a_node_that_ended_before_the_clock_was_put_back_takes_no_jobs(engine):
    """It was shown as ready, and waited for, until the date at which it had been heard of last came again"""
    clock = [1.8e9]
    desk = Desk(engine, clock=lambda: clock[0])
    desk.node("ended"), desk.node("there")
    clock[0] -= 1e8
    desk.node("there")
    assert {node.name: node.state for node in desk.nodes.page(limit=9).nodes} == {
        "ended": "lost",
        "there": "ready",
    }
    assert len(desk.nodes.offers()) == 1


@pytest.mark.parametrize(("silent_seconds", "state"), [(0, "ready"), (61, "unreachable"), (181, "lost")])
def test_a_silent_node_is_shown_as_such(engine, silent_seconds, state):
    clock = [1000.0]
    desk = Desk(engine, clock=lambda: clock[0])
    desk.node("a", torch="2.13.0", facts={"rack": 4})
    clock[0] += silent_seconds
    node = desk.nodes.get("a")
    assert (node.state, node.torch, node.facts) == (state, "2.13.0", {"rack": 4})


def test_nodes_are_registered_once_and_listed_by_name(desk):
    for name in ("b", "c", "a"):
        desk.node(name)
    desk.node("b", memory_free_bytes=5)
    page = desk.nodes.page(limit=2)
    rest = desk.nodes.page(limit=2, after=page.next_cursor)
    assert [(node.name, node.memory_free_bytes) for node in page.nodes + rest.nodes] == [
        ("a", 10_000),
        ("b", 5),
        ("c", 10_000),
    ]
    assert rest.next_cursor is None
