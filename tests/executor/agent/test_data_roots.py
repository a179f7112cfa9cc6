"""Texts that jobs name, with a real agent: the worker's own folders decide, whatever the service has seen."""

import pytest

pytest.importorskip("torch")

from planner_service.client import PlannerClient
from tests.executor.attempt.workers import (
    JOB,
    POLL_SECONDS,
    START_SECONDS,
    agent,
    job_of,
    reaches,
    submit,
)
from tests.serving import eventually, start_service

REFUSAL = "is in none of the worker's data folders"
TEXT = "some text to learn from, " * 500


@pytest.fixture
def url(tmp_path):
    """A service whose own folder has every file that is asked for; the worker's has less."""
    seen = tmp_path / "service"
    seen.mkdir()
    for name in ("text.txt", "link.txt", "missing.txt"):
        (seen / name).write_text(TEXT)
    running = start_service(tmp_path / "data", TIGHTFIT_DATA_ROOTS=str(seen))
    yield running.url
    running.kill()


@pytest.fixture
def worker(url, tmp_path):
    """An agent with one text, and a link out of its folder."""
    own = tmp_path / "worker"
    own.mkdir()
    (own / "text.txt").write_text(TEXT)
    (tmp_path / "outside.txt").write_text(TEXT)
    (own / "link.txt").symlink_to(tmp_path / "outside.txt")
    running = agent(url, tmp_path, "reader", "--data-root", str(own))
    yield running
    running.close()


def job(text):
    return {**JOB, "data": {"text": text}, "training": {"iterations": 2}}


def test_a_worker_reads_texts_of_its_own_folders_and_no_others(url, worker):
    """For training and for probes: a link out of the folder, a file that only the service sees"""
    allowed, linked = submit(url, job("text.txt")), submit(url, job("link.txt"))
    assert reaches(url, allowed, state="succeeded")
    assert reaches(url, linked, state="failed", reason="error")
    refused = job_of(url, linked)
    assert REFUSAL in refused["detail"]
    assert (refused["attempt"], refused["failures"]) == (1, 1)  # again would be the same again

    asked = {name: JOB[name] for name in ("model", "sequence")} | {"node": "reader"}
    with PlannerClient(url) as client:
        probe = client.request_probe({**asked, "data": {"text": "missing.txt"}})
        assert eventually(
            lambda: client.probe(probe.id).state == "failed", START_SECONDS, every_seconds=POLL_SECONDS
        )
        assert REFUSAL in client.probe(probe.id).detail
