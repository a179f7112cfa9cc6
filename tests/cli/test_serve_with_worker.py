"""`tightfit serve --with-worker`: one command that plans and trains, and ends cleanly."""

import signal
from pathlib import Path

import pytest

pytest.importorskip("torch")

from planner_service.client import PlannerClient, PlannerRefused
from tests.api.guarded import make_key
from tests.executor.attempt.workers import (
    ENDLESS,
    JOB,
    LEASES,
    START_SECONDS,
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
    environ = {**LEASES, "OMP_NUM_THREADS": "1", "TIGHTFIT_SAVE_SECONDS": "7.5"}
    both = start_service(tmp_path, "--with-worker", **environ)
    try:
        endless = submit(both.url, {**ENDLESS, "engine": "local"})
        assert trains(both.url, endless)
        below = descendants(both.process.pid)
        assert len(below) == 3  # agent, supervisor, trainer
        for process_id in below:
            assert b"--save-seconds\0007.5\0" in Path(f"/proc/{process_id}/cmdline").read_bytes()
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


def test_the_worker_has_a_key_of_its_own_where_the_service_asks_for_keys(tmp_path):
    """Nobody made a key for it: it registers, claims and trains; whoever has no key gets nothing"""
    key = make_key(tmp_path, "team", "read", "submit")
    both = start_service(
        tmp_path, "--with-worker", **LEASES, OMP_NUM_THREADS="1", TIGHTFIT_AUTHENTICATION="always"
    )
    try:
        with PlannerClient(both.url) as nobody, pytest.raises(PlannerRefused) as refused:
            nobody.submit_job({**JOB, "engine": "local"})
        assert refused.value.status == 401
        with PlannerClient(both.url, api_key=key) as team:
            anywhere = {name: part for name, part in JOB.items() if name != "engine"}
            job_id = team.submit_job({**anywhere, "training": {"iterations": 2}}).id
            assert eventually(lambda: team.job(job_id).state == "succeeded", START_SECONDS)
            (worker,) = team.nodes().nodes
            assert team.job(job_id).node == worker.name
            with pytest.raises(PlannerRefused) as refused:  # the worker's key is nobody else's
                team.audit()
            assert refused.value.status == 403
    finally:
        assert both.terminate() == -signal.SIGTERM
