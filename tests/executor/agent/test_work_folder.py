"""An agent whose work folder or machine is unfit keeps no job from others."""

import pytest

pytest.importorskip("torch")

from planner_service.client import PlannerClient
from tests.api.workers import HTTP
from tests.executor.attempt.workers import JOB, Worker, agent, job_of, reaches, submit

SHORT = {**JOB, "training": {"iterations": 3}}


def test_an_agent_whose_work_folder_cannot_be_made_says_so_and_never_registers(url, tmp_path):
    """Exit status 2 and one line, before the service hears of the node"""
    (tmp_path / "file").write_text("no folder")
    unfit = agent(url, tmp_path, "unfit", "--work-dir", str(tmp_path / "file" / "work"))
    try:
        assert unfit.ended() == 2
    finally:
        unfit.close()
    (line,) = unfit.log.read_text().splitlines()
    assert f"the work folder {tmp_path / 'file' / 'work'} cannot be used" in line
    assert HTTP.get(f"{url}/v1/nodes/unfit").status_code == 404


FAILS_ONCE = """
import sys
from executor.agent import agent
from executor.cli import main

start = agent.start_attempt

def start_but_once(**options):
    agent.start_attempt = start
    raise BlockingIOError(11, "Resource temporarily unavailable")

agent.start_attempt = start_but_once
sys.exit(main())
"""
"""An agent on a machine that has no process left when it takes its first job."""


def test_a_job_that_could_not_be_started_is_given_back_at_once_and_for_free(url, tmp_path):
    """Not left to its lease of a minute; the agent goes on"""
    job_id = submit(url, SHORT)
    options = ("--node", "busy", "--work-dir", str(tmp_path / "work"), "--poll-seconds", "0.2", "--jobs", "1")
    busy = Worker(tmp_path, "agent", "--planner", url, *options, code=FAILS_ONCE)
    try:
        assert reaches(url, job_id, seconds=40, state="succeeded", failures=0)
        assert busy.ended() == 0
    finally:
        busy.close()
    with PlannerClient(url) as client:
        first, second = client.attempts(job_id)
    assert (first.outcome, second.outcome) == ("preempted", "succeeded")
    assert "could not start it: [Errno 11] Resource temporarily unavailable" in first.detail
    assert job_of(url, job_id)["node"] == "busy"
