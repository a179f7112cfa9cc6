"""Probes on request, with a real service and real agents: measured, refused, lost and asked again."""

import json
import os
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from executor.agent.probing import REFUSED  # noqa: E402
from planner_service.cli import main  # noqa: E402
from planner_service.client import PlannerClient, PlannerRefused  # noqa: E402
from tests.executor.attempt.workers import START_SECONDS, agent, children_of, is_alive  # noqa: E402
from tests.serving import eventually  # noqa: E402

REQUEST = {
    "node": "prober",
    "model": {"kind": "gru", "hidden_size": 8, "embedding_size": 4},
    "data": {"text": "python", "characters": 20_000},
    "sequence": {"length": 40, "batch_size": 2},
}


@pytest.fixture
def client(url):
    with PlannerClient(url) as client:
        yield client


@pytest.fixture
def prober(url, tmp_path):
    found = []

    def start(*arguments):
        found.append(agent(url, tmp_path, "prober", *arguments))
        return found[-1]

    yield start
    for each in found:
        each.close()


def is_registered(client, node):
    return any(each.name == node for each in client.nodes().nodes)


def ended(client, probe):
    assert eventually(lambda: client.probe(probe.id).state in ("succeeded", "failed"), START_SECONDS)
    return client.probe(probe.id)


def test_an_agent_probes_on_request_and_plans_for_its_device_know_the_profile(
    client, url, prober, tmp_path, capsys
):
    prober()
    assert eventually(lambda: is_registered(client, "prober"), START_SECONDS)
    job = tmp_path / "job.yaml"
    job.write_text("model: {kind: gru, hidden_size: 8, embedding_size: 4}\n")
    with job.open("a") as file:
        file.write("data: {text: python, characters: 20000}\nsequence: {length: 40, batch_size: 2}\n")
        file.write("training: {iterations: 3}\nbudget: 64KiB\n")
    assert main(["probe", "prober", str(job), "--planner", url, "--wait"]) == 0
    profile_id = capsys.readouterr().out.split()[-1]

    kept = client.profile(profile_id)
    assert (kept.cell, kept.profile.hidden_size, kept.profile.sequence_length) == ("gru", 8, 40)
    plan = client.plan(
        {
            "model": {
                "kind": "gru",
                "implementation": "fused",
                "input_size": 4,
                "hidden_size": 8,
                "embedding": {"vocabulary_size": kept.profile.head_output_size},
                "head": {"output_size": kept.profile.head_output_size},
            },
            "sequence": {"length": 40, "batch_size": 2},
            "training": {"loss": "inside"},
            "memory": {"device_budget_bytes": "1MiB"},
            "profile_id": profile_id,
        }
    )
    assert plan.memory.projected_peak_bytes > 0
    assert plan.cost.unit == "seconds"


def test_a_probe_whose_agent_is_killed_is_measured_by_the_next_one(client, prober):
    first = prober()
    assert eventually(lambda: is_registered(client, "prober"), START_SECONDS)
    probe = client.request_probe(REQUEST)
    assert eventually(lambda: bool(children_of(first.process.pid)), START_SECONDS)
    (measuring,) = children_of(first.process.pid)
    first.process.kill()
    first.process.wait()
    assert eventually(lambda: not is_alive(measuring), 30)  # it dies with its agent
    assert client.probe(probe.id).state == "running"
    prober()
    done = ended(client, probe)
    assert (done.state, done.handovers) == ("succeeded", 2)


def test_nodes_that_nobody_registered_are_not_asked(client):
    with pytest.raises(PlannerRefused) as refused:
        client.request_probe({**REQUEST, "node": "nobody"})
    assert refused.value.status == 404


def test_a_probe_stays_under_its_cap(tmp_path):
    """A batch that cannot fit into the memory that the agent has for it, in a process as the agent starts it:
    one that ran other tests before has memory of its own to give
    """
    request = {
        **REQUEST,
        "training": {"iterations": 1},
        "budget": "free",
        "model": {"kind": "gru", "hidden_size": 1024},
        "sequence": {"length": 100, "batch_size": 2048},
        "data": {"text": "python", "characters": 500_000},
    }
    asked, profile = tmp_path / "request.json", tmp_path / "profile.json"
    asked.write_text(json.dumps(request), encoding="utf-8")
    command = [sys.executable, "-m", "executor.agent.probing", "--request", str(asked)]
    command += ["--output", str(profile), "--memory", str(2**20), "--parent", str(os.getpid())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == REFUSED
    assert "alloc" in done.stderr.splitlines()[-1]
    assert not profile.exists()
