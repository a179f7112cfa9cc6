"""Jobs go to their engine once, come back when it has given them up, and are stopped there when cancelled."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from planner_service.api.jobs.dispatcher import (
    FIRST_WAIT_SECONDS,
    GRACE_SECONDS,
    LONGEST_BUSY_SECONDS,
    MOST_BUSY,
    MOST_HANDED_OVER,
    Dispatcher,
)
from planner_service.dispatch import EngineBusy, EngineRefused, EngineStatus, EngineUnreachable, Resources
from planner_service.dispatch.local import LocalEngine
from planner_service.jobs import InvalidToken, JobNotAssigned
from planner_service.store import open_database
from tests.serving import eventually
from tests.store.desk import Desk


class Cluster:
    """An engine with a queue of its own, in memory; tests say what becomes of its launches."""

    name = "slurm"
    most_unfinished = None

    def __init__(self):
        self.launches = []
        self.states = {}
        self.cancelled = []
        self.withdrawn = []
        self.fault = None

    def submit(self, launch):
        self._fail()
        self.launches.append(launch)
        self.states[launch.name] = EngineStatus("waiting")
        return launch.name

    def statuses(self, references):
        self._fail()
        return {name: self.states.get(name, EngineStatus("missing")) for name in references}

    def cancel(self, reference):
        self._fail()
        self.cancelled.append(reference)
        self.states[reference] = EngineStatus("cancelled")

    def withdraw(self, name):
        self._fail()
        if name in self.states:
            self.withdrawn.append(name)
            self.states[name] = EngineStatus("cancelled")

    def _fail(self):
        if self.fault is not None:
            raise self.fault


@pytest.fixture
def desk(tmp_path):
    engine = open_database(f"sqlite:///{tmp_path / 'tightfit.sqlite3'}")
    yield Desk(engine)
    engine.dispose()


@pytest.fixture
def cluster():
    return Cluster()


@pytest.fixture
def clock():
    """Seconds that tests turn on by hand."""
    return [1000.0]


def dispatcher(desk, engine, clock, tmp_path, **resources):
    return Dispatcher(
        [engine],
        queue=desk.queue,
        jobs=desk.jobs,
        planner_url="http://planner:8080",
        work_dir=tmp_path / "jobs",
        resources_of=lambda job, engine: Resources(request_bytes=job.needed_bytes.cuda, **resources),
        clock=lambda: clock[0],
    )


@pytest.fixture
def dispatching(desk, cluster, clock, tmp_path):
    return dispatcher(desk, cluster, clock, tmp_path)


def open_attempt(desk, launch):
    from planner_service.contract.attempts import AttemptRequest

    return desk.attempts.open(launch.job_id, launch.launch_token, AttemptRequest())


def test_a_job_is_handed_over_once_with_everything_that_its_worker_needs(
    desk, cluster, dispatching, tmp_path
):
    job = desk.submit(engine="slurm", priority=3)
    for _ in range(3):
        dispatching.look()
    (launch,) = cluster.launches
    assert (launch.job_id, launch.number, launch.priority) == (job.id, 1, 3)
    assert launch.resources.request_bytes == 1100
    work_dir = str(tmp_path / "jobs" / job.id)
    assert " ".join(launch.command) == (
        f"tightfit-worker attempt --planner http://planner:8080 --job {job.id} --work-dir {work_dir} "
        "--save-seconds 60"
    )
    kept = desk.jobs.get(job.id)
    assert (kept.state, kept.engine_reference) == ("assigned", launch.name)
    assert open_attempt(desk, launch).number == 1


def test_a_job_that_takes_what_is_free_takes_what_its_engine_was_asked_for(desk, cluster, clock, tmp_path):
    """The worker is told, and the service knows what the budget comes to when it ran out of memory"""
    dispatching = dispatcher(desk, cluster, clock, tmp_path, memory_bytes=5_000, device="cpu")
    job = desk.submit(engine="slurm", budget="free")
    dispatching.look()
    (launch,) = cluster.launches
    assert launch.command[-2:] == ("--memory", "5000")
    attempt = open_attempt(desk, launch)
    desk.report(attempt, "oom")
    assert desk.jobs.get(job.id).budget == (5_000 - 100) * 15 // 16


def test_jobs_of_other_engines_are_left_alone(desk, cluster, dispatching):
    desk.submit(engine="agents")
    dispatching.look()
    assert cluster.launches == []


def test_a_job_that_the_engine_has_lost_comes_back_and_is_handed_over_anew(desk, cluster, dispatching, clock):
    job = desk.submit(engine="slurm")
    dispatching.look()
    cluster.states.clear()
    dispatching.look()
    assert desk.jobs.get(job.id).state == "queued"
    assert "missing" in desk.jobs.get(job.id).detail
    dispatching.look()
    assert len(cluster.launches) == 1, "not at once"
    clock[0] += FIRST_WAIT_SECONDS
    dispatching.look()
    first, second = cluster.launches
    assert (first.number, second.number) == (1, 2)
    assert open_attempt(desk, second).number == 1
    with pytest.raises((InvalidToken, JobNotAssigned)):
        open_attempt(desk, first)


def test_waits_grow_for_a_job_that_keeps_coming_back(desk, cluster, dispatching, clock):
    desk.submit(engine="slurm")
    started = []
    for _ in range(100):
        dispatching.look()
        if len(cluster.launches) > len(started):
            started.append(clock[0])
        cluster.states.clear()
        clock[0] += 1
    gaps = [later - earlier for earlier, later in pairwise(started)]
    assert len(gaps) >= 3
    assert all(later > 1.5 * earlier for earlier, later in pairwise(gaps))


def test_jobs_that_keep_coming_back_are_in_nobodys_way(desk, cluster, dispatching, clock):
    """More of them than are handed over at a time, all of them more urgent"""
    for _ in range(MOST_HANDED_OVER + 5):
        desk.submit(engine="slurm", priority=1)
    patient = desk.submit(engine="slurm")
    for _ in range(4):
        dispatching.look()
        cluster.states = {
            launch.name: EngineStatus("waiting" if launch.job_id == patient.id else "failed", "no image")
            for launch in cluster.launches
        }
        clock[0] += 1
    assert desk.jobs.get(patient.id).state == "assigned"


def test_a_running_job_gets_time_for_its_report_after_its_engine_says_it_is_over(
    desk, cluster, dispatching, clock
):
    job = desk.submit(engine="slurm")
    dispatching.look()
    attempt = open_attempt(desk, cluster.launches[0])
    cluster.states[cluster.launches[0].name] = EngineStatus("succeeded")
    dispatching.look()
    clock[0] += GRACE_SECONDS / 2
    dispatching.look()
    assert desk.jobs.get(job.id).state == "running"
    assert desk.report(attempt, "succeeded").state == "succeeded"
    clock[0] += GRACE_SECONDS
    dispatching.look()
    assert desk.jobs.get(job.id).state == "succeeded"
    assert cluster.cancelled == []


def test_a_running_job_whose_engine_has_ended_it_comes_back_after_that_time(
    desk, cluster, dispatching, clock
):
    job = desk.submit(engine="slurm")
    dispatching.look()
    open_attempt(desk, cluster.launches[0])
    cluster.states[cluster.launches[0].name] = EngineStatus("failed", "exit status 137")
    dispatching.look()
    clock[0] += GRACE_SECONDS
    dispatching.look()
    kept = desk.jobs.get(job.id)
    assert (kept.state, kept.reason) == ("queued", "node_lost")
    assert "exit status 137" in kept.detail


def test_a_job_that_its_engine_has_requeued_is_left_to_it(desk, cluster, dispatching, clock):
    """Silence of the worker while the engine holds the job: the engine's retry, not ours"""
    job = desk.submit(engine="slurm")
    dispatching.look()
    open_attempt(desk, cluster.launches[0])
    desk.lose(job.id)
    clock[0] += 10 * GRACE_SECONDS
    dispatching.look()
    assert len(cluster.launches) == 1
    assert open_attempt(desk, cluster.launches[0]).number == 2


def test_cancelling_reaches_the_engine_before_and_while_a_worker_runs(desk, cluster, dispatching):
    waiting, running = desk.submit(engine="slurm"), desk.submit(engine="slurm")
    dispatching.look()
    dispatching.look()
    by_job = {launch.job_id: launch for launch in cluster.launches}
    open_attempt(desk, by_job[running.id])
    for job in (waiting, running):
        desk.jobs.cancel(job.id)
    dispatching.look()
    assert set(cluster.cancelled) == {by_job[waiting.id].name, by_job[running.id].name}


def test_a_refused_job_has_failed_and_is_not_tried_again(desk, cluster, dispatching):
    job = desk.submit(engine="slurm")
    cluster.fault = EngineRefused("slurm", "no such partition")
    dispatching.look()
    kept = desk.jobs.get(job.id)
    assert (kept.state, kept.reason) == ("failed", "error")
    assert "no such partition" in kept.detail
    cluster.fault = None
    dispatching.look()
    assert cluster.launches == []


def test_an_engine_that_does_not_answer_is_asked_again_later(desk, cluster, dispatching, clock):
    """With the same launch: if only the answer was lost, the engine finds it by its name"""
    job = desk.submit(engine="slurm")
    cluster.fault = EngineUnreachable("slurm", "timed out")
    dispatching.look()
    assert desk.jobs.get(job.id).engine_reference is None
    cluster.fault = None
    dispatching.look()
    assert cluster.launches == []
    clock[0] += FIRST_WAIT_SECONDS
    dispatching.look()
    (launch,) = cluster.launches
    assert launch.number == 1
    assert desk.jobs.get(job.id).engine_reference == launch.name
    assert open_attempt(desk, launch).number == 1


def test_a_job_that_is_cancelled_before_its_engine_answered_is_withdrawn(desk, cluster, dispatching, clock):
    job = desk.submit(engine="slurm")
    submit = cluster.submit

    def lost_answer(launch):
        submit(launch)
        raise EngineUnreachable("slurm", "timed out")

    cluster.submit = lost_answer
    dispatching.look()
    desk.jobs.cancel(job.id)
    clock[0] += FIRST_WAIT_SECONDS
    dispatching.look()
    assert cluster.withdrawn == [cluster.launches[0].name]


def test_a_launch_that_its_engine_has_after_all_is_withdrawn_before_the_next(
    desk, cluster, dispatching, clock, tmp_path
):
    """A service submitted it and died with the answer"""
    job = desk.submit(engine="slurm")
    desk.queue.hand_over(job.id)
    orphan = f"tightfit-{job.id}-1"
    cluster.states[orphan] = EngineStatus("waiting")
    for _ in range(3):
        dispatching.look()
        clock[0] += GRACE_SECONDS
    assert cluster.withdrawn == [orphan]
    assert [launch.number for launch in cluster.launches] == [2]


def test_a_restarted_service_tells_the_engine_of_what_was_cancelled_before(
    desk, cluster, dispatching, clock, tmp_path
):
    job = desk.submit(engine="slurm")
    dispatching.look()
    desk.jobs.cancel(job.id)
    restarted = dispatcher(desk, cluster, clock, tmp_path)
    cluster.fault = EngineUnreachable("slurm", "restarting too")
    restarted.look()
    cluster.fault = None
    for _ in range(3):
        clock[0] += FIRST_WAIT_SECONDS
        restarted.look()
    assert cluster.cancelled == [cluster.launches[0].name]


def test_a_limit_of_the_engine_keeps_that_job_waiting_and_nothing_else(desk, cluster, dispatching, clock):
    running, limited = desk.submit(engine="slurm"), desk.submit(engine="slurm")
    submit = cluster.submit

    def one_at_a_time(launch):
        if launch.job_id == limited.id and cluster.launches[-1].job_id != limited.id and len(tries) < 2:
            tries.append(clock[0])
            raise EngineBusy("slurm", "QOSMaxSubmitJobPerUserLimit")
        return submit(launch)

    tries = []
    cluster.submit = one_at_a_time
    dispatching.look()
    kept = desk.jobs.get(limited.id)
    assert (kept.state, "QOSMaxSubmitJobPerUserLimit" in kept.detail) == ("queued", True)
    desk.jobs.cancel(running.id)
    dispatching.look()
    assert len(cluster.cancelled) == 1, "the engine itself is not paused"
    for _ in range(4 * int(FIRST_WAIT_SECONDS)):
        clock[0] += 1
        dispatching.look()
    assert desk.jobs.get(limited.id).state == "assigned"
    assert tries[1] - tries[0] >= FIRST_WAIT_SECONDS


def test_an_engine_at_its_limit_is_not_offered_all_that_waits_behind_it(desk, cluster, dispatching, clock):
    """Each offer is a command of Slurm's and two events of a job; what is within the limit gets through"""
    for _ in range(3 * MOST_BUSY):
        desk.submit(engine="slurm", priority=1)
    small = desk.submit(engine="slurm")
    offered, submit = [], cluster.submit

    def limited(launch):
        offered.append(clock[0])
        if launch.job_id != small.id:
            raise EngineBusy("slurm", "QOSMaxGRESPerUser")
        return submit(launch)

    cluster.submit = limited
    begin = clock[0]
    while desk.jobs.get(small.id).state == "queued" and clock[0] < begin + 600:
        dispatching.look()
        clock[0] += 1
    assert desk.jobs.get(small.id).state == "assigned"
    for _ in range(600):
        dispatching.look()
        clock[0] += 1
    lately = [at for at in offered if at > clock[0] - 300]
    assert 0 < len(lately) <= 300 / LONGEST_BUSY_SECONDS * MOST_BUSY


@pytest.mark.parametrize("fault", [json.JSONDecodeError("Expecting value", "<html>", 0), KeyError("status")])
def test_one_unexpected_answer_pauses_its_engine_and_ends_nothing(desk, clock, tmp_path, fault, caplog):
    """Jobs of other engines go on, and the engine itself when it has come to its senses"""
    broken, sound = Cluster(), Cluster()
    broken.name = "ray"
    dispatching = Dispatcher(
        [broken, sound],
        queue=desk.queue,
        jobs=desk.jobs,
        planner_url="http://planner:8080",
        work_dir=tmp_path / "jobs",
        resources_of=lambda job, engine: Resources(),
        clock=lambda: clock[0],
    )
    jobs = [desk.submit(engine="ray"), desk.submit(engine="slurm")]
    broken.fault = fault
    dispatching.look()
    assert (len(broken.launches), len(sound.launches)) == (0, 1)
    assert "engine ray: nothing dispatched" in caplog.text
    broken.fault = None
    clock[0] += FIRST_WAIT_SECONDS
    dispatching.look()
    assert [desk.jobs.get(job.id).state for job in jobs] == ["assigned"] * 2
    assert len(broken.launches) == 1


def test_a_service_that_died_between_handing_over_and_noting_it_hands_over_anew(
    desk, cluster, dispatching, clock, tmp_path
):
    """The token of the first launch is lost with the service: its worker is refused"""
    job = desk.submit(engine="slurm")
    lost = desk.queue.hand_over(job.id)
    restarted = dispatcher(desk, cluster, clock, tmp_path)
    restarted.look()
    assert desk.jobs.get(job.id).state == "assigned", "another service may be at it"
    for _ in range(2):
        clock[0] += GRACE_SECONDS
        restarted.look()
    (launch,) = cluster.launches
    assert (lost.number, launch.number) == (1, 2)
    assert open_attempt(desk, launch).number == 1


def test_no_more_launches_than_the_engine_takes_and_the_most_urgent_first(desk, clock, tmp_path):
    local = Cluster()
    local.name, local.most_unfinished = "local", 1
    dispatching = dispatcher(desk, local, clock, tmp_path)
    desk.submit(engine="local")
    urgent = desk.submit(engine="local", priority=5)
    for _ in range(3):
        dispatching.look()
    assert [launch.job_id for launch in local.launches] == [urgent.id]


def test_a_real_process_is_started_and_its_end_is_seen(desk, clock, tmp_path, monkeypatch):
    """The local engine: a process that ends without opening an attempt gives its job back"""
    monkeypatch.setattr(
        "planner_service.api.jobs.dispatcher.attempt_command",
        lambda **given: (sys.executable, "-c", f"print('job', {given['job_id']!r})"),
    )
    local = LocalEngine()
    dispatching = dispatcher(desk, local, clock, tmp_path)
    job = desk.submit(engine="local")
    dispatching.look()
    log = Path(tmp_path / "jobs" / job.id / "worker.log")
    assert eventually(lambda: log.exists() and job.id in log.read_text(), 10)

    def came_back():
        dispatching.look()
        return desk.jobs.get(job.id).state == "queued"

    assert eventually(came_back, 10)
    assert "exit status 0" in desk.jobs.get(job.id).detail
