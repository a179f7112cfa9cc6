"""Workers fail as workers do, with real processes and real signals; jobs do not get lost or done twice."""

import os
import re
import resource
import signal
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("torch")

from executor.agent import running
from executor.attempt.supervisor import Ending
from executor.service.link import AttemptLink, Refused, open_attempt
from tests.api.workers import HTTP
from tests.executor.attempt.workers import (
    ENDLESS,
    JOB,
    attempt,
    claim,
    is_alive,
    job_of,
    reaches,
    report_of,
    serving,
    submit,
    trains,
)
from tests.serving import eventually, start_service


@pytest.fixture
def started(url, tmp_path):
    """Starts workers on a new job, or on the one of that id; whatever the test finds, none is left."""
    workers, jobs = [], []

    def start(job, *arguments, **options):
        job_id = job if isinstance(job, str) else submit(url, job)
        jobs.append(job_id)
        worker, claimed = attempt(url, tmp_path, *arguments, **options)
        workers.append(worker)
        assert claimed == job_id
        return worker, job_id

    yield start
    for worker in workers:
        worker.close()
    for job_id in jobs:  # the next test claims its own job
        HTTP.post(f"{url}/v1/jobs/{job_id}/cancel")


def test_a_worker_that_is_killed_takes_its_trainer_along_and_its_job_is_done_by_the_next(
    url, started, tmp_path
):
    """Kill -9 of the supervisor: the kernel ends the trainer; the job is queued for node_lost, for free."""
    worker, job_id = started(JOB, "--save-seconds", "0")
    assert trains(url, job_id)
    (trainer,) = worker.trainers()
    worker.process.kill()
    assert eventually(lambda: not is_alive(trainer), 5)
    assert reaches(url, job_id, state="queued", reason="node_lost", failures=0)

    resumed, _ = attempt(url, tmp_path)
    try:
        assert resumed.ended() == Ending.SUCCEEDED
    finally:
        resumed.close()
    done = job_of(url, job_id)
    assert (done["state"], done["attempt"], done["iteration"]) == ("succeeded", 2, 300)
    measurement = report_of(tmp_path, job_id, 2)["measurement"]
    assert len(measurement["losses"]) == 300
    assert measurement["iterations"] < 300  # the killed attempt's were not run again


def test_a_worker_that_was_stopped_past_its_lease_is_fenced_and_stops_its_process_group(
    url, started, tmp_path
):
    """SIGSTOP, lost, another attempt, SIGCONT: 409, the whole group goes, and its report is refused"""
    worker, job_id = started(ENDLESS)
    assert trains(url, job_id)
    (trainer,) = worker.trainers()
    for pid in (trainer, worker.process.pid):
        os.kill(pid, signal.SIGSTOP)
    assert reaches(url, job_id, state="queued", reason="node_lost")

    _, token = claim(url, "another")
    second = open_attempt(url, job_id, token, node="another")
    assert second.number == 2
    for pid in (trainer, worker.process.pid):
        os.kill(pid, signal.SIGCONT)
    assert worker.ended() == Ending.FENCED
    assert eventually(lambda: not is_alive(trainer), 5)

    zombie = AttemptLink(url, second.model_copy(update={"number": 1}))
    with closing(zombie), pytest.raises(Refused) as refusal:
        zombie.report({"outcome": "succeeded"})
    assert refusal.value.status in (401, 409)
    job = job_of(url, job_id)  # the second attempt sends no heartbeats: on a busy machine it is late, too
    assert (job["attempt"], job["state"]) in ((2, "running"), (2, "queued"))
    with closing(AttemptLink(url, second)) as current:  # and leave no job behind for the next test
        current.report({"outcome": "error", "detail": "the test is over", "minimum_budget_bytes": 1})
    assert job_of(url, job_id)["state"] == "failed"


def test_a_worker_that_is_stopped_while_it_loads_gives_its_job_back_at_once(url, started):
    """As agents start it: SIGTERM before anything can hear it does not wait for the lease to run out"""
    worker, job_id = started(ENDLESS, code=running.WORKER)
    status = Path(f"/proc/{worker.process.pid}/status")
    blocks = re.compile(r"SigBlk:\t0*4002$", re.MULTILINE)  # SIGTERM and SIGINT
    assert eventually(lambda: blocks.search(status.read_text()), 10)
    worker.process.terminate()
    assert worker.ended() == Ending.GIVEN_BACK
    job = job_of(url, job_id)
    assert (job["state"], job["reason"], job["failures"]) == ("queued", "preempted", 0)


def test_a_cancellation_ends_the_process_group_of_a_trainer_that_hangs(url, started):
    """A stopped trainer hears no SIGTERM: after the grace its group is killed; heartbeats never starved"""
    worker, job_id = started(ENDLESS, "--grace-seconds", "0.5")
    assert trains(url, job_id)
    (trainer,) = worker.trainers()
    os.kill(trainer, signal.SIGSTOP)
    assert HTTP.post(f"{url}/v1/jobs/{job_id}/cancel").status_code in (200, 202)
    assert worker.ended() == Ending.SUCCEEDED
    assert not is_alive(trainer)
    assert reaches(url, job_id, state="cancelled", reason="cancelled")


SCARCE = f"""
import resource, sys
from executor.attempt.memory_cap import data_bytes
from executor.cli import main
from executor.jobs.prepared import PreparedJob

prepare = PreparedJob.of

def prepare_then_lose_memory(*arguments, **options):
    prepared = prepare(*arguments, **options)
    limit = data_bytes() + {96 * 2**20}
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))
    return prepared

PreparedJob.of = prepare_then_lose_memory
sys.exit(main())
"""
"""A worker on a machine whose other tenants leave 96 MiB once the job is prepared."""


def test_after_an_oom_the_next_attempt_gets_a_tighter_budget_and_succeeds(
    url, started, tmp_path, monkeypatch
):
    """The device has less than the budget said: the excess is fed back, on the same machine it then fits"""
    monkeypatch.setenv("TIGHTFIT_FUSED_KERNELS", "off")  # our own tape is so small that all of it would fit
    job = {
        **JOB,
        "model": {"kind": "gru", "hidden_size": 128, "embedding_size": 16, "dtype": "float32"},
        "data": {"text": "python"},
        "sequence": {"length": 600, "batch_size": 64},
        "training": {"iterations": 1, "optimizer": "sgd"},
        "budget": "300MiB",
    }
    worker, job_id = started(job, code=SCARCE)
    budget, number = 300 * 2**20, 1
    while (ending := worker.ended()) == Ending.FAILED:
        after = job_of(url, job_id)
        assert (after["state"], after["reason"], after["failures"]) == ("queued", "oom", number)
        assert after["budget"] <= budget - report_of(tmp_path, job_id, number)["excess_bytes"]
        budget, number = after["budget"], number + 1
        worker, _ = started(job_id, code=SCARCE)
    # Seldom the third: of the 96 MiB the process keeps more or less of what it measured with.
    assert (ending, number) in ((Ending.SUCCEEDED, 2), (Ending.SUCCEEDED, 3))
    measurement = report_of(tmp_path, job_id, number)["measurement"]
    assert measurement["measured_peak_bytes"] <= measurement["projected_peak_bytes"] <= budget


def test_a_service_that_is_killed_and_comes_back_finds_its_workers_training(tmp_path):
    """Kill -9 of the service: the attempt goes on, and reports to the one that comes after"""
    first = serving(tmp_path / "data")
    job_id = submit(first.url, JOB)
    worker, _ = attempt(first.url, tmp_path)
    port = first.url.rpartition(":")[2]
    try:
        assert trains(first.url, job_id)
        first.kill()
        second = start_service(tmp_path / "data", "--port", port)
        try:
            assert worker.ended() == Ending.SUCCEEDED
            done = job_of(second.url, job_id)
            assert (done["state"], done["attempt"], done["iteration"]) == ("succeeded", 1, 300)
        finally:
            second.terminate()
    finally:
        worker.close()


def test_limits_of_this_process_are_as_they_were():
    """The tests above capped their workers, not this process"""
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY
