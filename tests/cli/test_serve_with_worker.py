"""`tightfit serve --with-worker`: one command that plans and trains, and ends cleanly."""

import signal

import pytest

pytest.importorskip("torch")

from tests.executor.attempt.workers import (
    ENDLESS,
    LEASES,
    children_of,
    is_alive,
    job_of,
    submit,
    trains,
)
from tests.serving import eventually, start_service


def descendants(pid):
    """Every process below."""
    return [each for child in children_of(pid) for each in (child, *descendants(child))]


def test_one_command_serves_and_trains_and_gives_its_job_back_at_the_end(tmp_path):
    """A job of the engine `local` is trained; SIGTERM ends both, and the job is queued again"""
    both = start_service(tmp_path, "--with-worker", **LEASES, OMP_NUM_THREADS="1")
    try:
        endless = submit(both.url, {**ENDLESS, "engine": "local"})
        assert trains(both.url, endless)
        below = descendants(both.process.pid)
        assert len(below) == 3  # agent, supervisor, trainer
    finally:
        assert both.terminate() == -signal.SIGTERM
    assert eventually(lambda: not any(map(is_alive, below)), 5)

    after = start_service(tmp_path, **LEASES)
    try:
        job = job_of(after.url, endless)
        assert (job["state"], job["reason"], job["failures"]) == ("queued", "preempted", 0)
        assert job["iteration"] > 3
    finally:
        after.terminate()
