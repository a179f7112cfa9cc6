"""Agents whose key counts no more: what they have begun is not theirs to end."""

import pytest

pytest.importorskip("torch")

from executor.agent.agent import LONGEST_PAUSE_SECONDS, Agent, AgentOptions
from executor.agent.node import NodeFacts
from executor.service.link import Refused


class Running:
    """An attempt that trains until the test says otherwise."""

    job_id, memory_bytes, exit_status = "j", 1, None


def test_an_agent_whose_key_has_expired_lets_its_jobs_end_and_goes_then(tmp_path, monkeypatch, capfd):
    facts = NodeFacts(device="cpu", device_kind="cpu", memory_total_bytes=2**40, memory_free_bytes=2**40)
    agent = Agent(
        AgentOptions(planner_url="http://127.0.0.1:9", node="a", work_dir=tmp_path), facts=lambda: facts
    )

    def refuse(_facts: object) -> None:
        raise Refused(401, "unauthenticated", "expired")

    monkeypatch.setattr(agent._link, "register", refuse)
    training = Running()
    agent._running.append(training)
    agent._round()
    assert (agent._running, agent._pause) == ([training], LONGEST_PAUSE_SECONDS)
    assert "those that run go on: refused with 401" in capfd.readouterr().err
    monkeypatch.setattr(training, "exit_status", 0)
    with pytest.raises(Refused):
        agent._round()
    agent._link.close()
