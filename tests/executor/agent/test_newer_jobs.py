"""Workers older than their service: what they cannot read goes to others, or fails with the reason."""

import httpx
import pytest

pytest.importorskip("torch")

from executor.agent import agent as agent_module
from executor.agent.agent import Agent, AgentOptions
from executor.agent.node import NodeFacts
from executor.attempt.command import AttemptOptions, run_attempt
from executor.attempt.stopping import Stopping
from executor.attempt.supervisor import Ending
from executor.native.environment import LAUNCH_TOKEN
from planner_service.client import PlannerClient
from planner_service.worker_client import NotUnderstood, WorkerClient
from tests.executor.attempt.workers import JOB, claim, job_of, submit

NEWER = {**JOB, "priority": 50, "model": {**JOB["model"], "hidden_size": 10}}
KNOWN = {**JOB, "priority": 40}
WHAT = "does not know job.request.model.heads"


@pytest.fixture(autouse=True)
def newer_service(monkeypatch):
    """What this process hears of models with ten units has a field more, and so has every node."""
    send = WorkerClient._send

    def sent(client, request, **options):
        heard = send(client, request, **options)
        content = heard.content.replace(b'"hidden_size":10', b'"heads":2,"hidden_size":10')
        content = content.replace(b'{"device":', b'{"racks":1,"device":')
        media_type = {"content-type": heard.headers.get("content-type", "")}
        return httpx.Response(heard.status_code, content=content, headers=media_type)

    monkeypatch.setattr(WorkerClient, "_send", sent)


@pytest.fixture
def agent(url, tmp_path):
    """An agent of this process with more memory than any job needs; it has registered."""
    facts = NodeFacts(device="cpu", device_kind="cpu", memory_total_bytes=2**40, memory_free_bytes=2**40)
    made = Agent(AgentOptions(planner_url=url, node="older", work_dir=tmp_path), facts=lambda: facts)
    made._register()
    yield made
    made._link.close()


def test_a_job_that_an_agent_cannot_read_is_given_back_once_and_the_next_one_taken(url, agent, monkeypatch):
    """At once, for free and with the reason: not left to its lease, and not asked for again"""
    started = []
    monkeypatch.setattr(agent_module, "start_attempt", lambda **options: started.append(options["job_id"]))
    newer, known = submit(url, NEWER), submit(url, KNOWN)
    while agent._claim():
        agent._running.clear()
    assert started == [known]
    job = job_of(url, newer)
    assert (job["state"], job["reason"], job["attempt"], job["failures"]) == ("queued", "preempted", 1, 0)
    assert WHAT in job["detail"]
    for job_id in (newer, known):
        httpx.post(f"{url}/v1/jobs/{job_id}/cancel", timeout=30)


def test_a_probe_that_an_agent_cannot_read_fails_with_the_reason(url, agent):
    asked = {name: NEWER[name] for name in ("model", "data", "sequence", "training", "budget")}
    with PlannerClient(url) as client:
        probe = client.request_probe({"node": "older", **asked})
        agent._claim_probe()
        ended = client.probe(probe.id)
    assert ended.state == "failed"
    assert "does not know request.model.heads" in ended.detail
    assert agent._probe is None


def test_an_attempt_that_a_scheduler_started_fails_for_good_with_the_reason(url, tmp_path, monkeypatch):
    """Under Slurm it would be started again and again, and be silent until its lease ends"""
    submit(url, NEWER)
    with pytest.raises(NotUnderstood) as given:
        claim(url)
    monkeypatch.setenv(LAUNCH_TOKEN, given.value.token)
    monkeypatch.setattr(Stopping, "listen_to_both", lambda self: None)  # signals here are pytest's
    options = AttemptOptions(planner_url=url, job_id=given.value.work_id, work_dir=tmp_path, node="slurm-1")
    assert run_attempt(options) is Ending.FAILED
    job = job_of(url, given.value.work_id)
    assert (job["state"], job["attempt"]) == ("failed", 1)
    assert WHAT in job["detail"]
