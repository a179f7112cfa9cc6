"""The worst life of one job, real workers, a service on PostgreSQL: stopped, fenced, killed, finished.

The same faults one by one, on SQLite, are in `test_faults.py`.
"""

import os
import signal

import pytest

pytest.importorskip("torch")

from executor.attempt.supervisor import Ending
from planner_service.client import PlannerClient
from tests.executor.attempt.workers import (
    JOB,
    LEASES,
    attempt,
    is_alive,
    job_of,
    reaches,
    report_of,
    submit,
    trains,
)
from tests.serving import eventually, start_service


@pytest.fixture
def url(postgres, tmp_path):
    """A service whose workers are lost after three seconds, on a database of its own."""
    running = start_service(tmp_path, **LEASES, TIGHTFIT_DATABASE_URL=postgres.create_database())
    yield running.url
    running.kill()


@pytest.fixture
def begin(url, tmp_path):
    """Starts workers on the job that waits; none is left."""
    found = []

    def start():
        worker, _ = attempt(url, tmp_path, "--save-seconds", "0")
        found.append(worker)
        return worker

    yield start
    for worker in found:
        worker.close()


def test_a_job_whose_workers_are_stopped_and_killed_is_done_once_and_keeps_one_report(url, begin, tmp_path):
    """SIGSTOP past the lease, a successor, SIGCONT: fenced. The successor killed -9: a third one ends it"""
    job_id = submit(url, JOB)
    stopped = begin()
    assert trains(url, job_id)
    below = [*stopped.trainers(), stopped.process.pid]
    for pid in below:
        os.kill(pid, signal.SIGSTOP)
    assert reaches(url, job_id, state="queued", reason="node_lost", failures=0)

    killed = begin()
    assert trains(url, job_id, past=job_of(url, job_id)["iteration"])
    for pid in below:
        os.kill(pid, signal.SIGCONT)
    assert stopped.ended() == Ending.FENCED
    assert eventually(lambda: not any(map(is_alive, below[:-1])), 5)
    assert job_of(url, job_id)["attempt"] == 2
    (trainer,) = killed.trainers()
    killed.process.kill()
    assert eventually(lambda: not is_alive(trainer), 5)
    assert reaches(url, job_id, state="queued", reason="node_lost", failures=0)

    assert begin().ended() == Ending.SUCCEEDED
    done = job_of(url, job_id)
    assert (done["state"], done["attempt"], done["failures"], done["iteration"]) == ("succeeded", 3, 0, 300)
    measured = report_of(tmp_path, job_id, 3)["measurement"]
    assert len(measured["losses"]) == 300
    assert measured["iterations"] < 300  # what was saved was not run again
    with PlannerClient(url) as client:
        outcomes = [each.outcome for each in client.attempts(job_id)]
        assert outcomes == [None, None, "succeeded"]  # one report was accepted, of three workers
        (kept,) = client.measurements(job=done["name"]).measurements
        assert kept.id == done["measurement_id"]
