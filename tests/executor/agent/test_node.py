"""What a node says of itself."""

import json
import subprocess
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from executor.agent import node
from executor.agent.agent import REGISTER_SECONDS, Agent, AgentOptions
from executor.agent.node import gpu_facts, node_facts
from executor.agent.running import API_KEY, environment_of_children

LISTED = [
    "GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-0aa1)",
    "GPU 1: NVIDIA A100-SXM4-80GB (UUID: GPU-1bb2)",
    "  MIG 3g.40gb     Device  0: (UUID: MIG-2)",
    "  MIG 1g.10gb     Device  1: (UUID: MIG-3)",
    "GPU 10: NVIDIA A100-SXM4-80GB (UUID: GPU-2cc3)",
]
WHOLE = "NVIDIA A100-SXM4-80GB, 81559, 80995, 570"
SLICE = {"device": "NVIDIA A100-SXM4-80GB", "memory_total_bytes": 100, "memory_free_bytes": 90}
SLICE |= {"mig_slice": "MIG 3g.40gb"}


class Machine:
    """A machine with GPUs, as its tools tell: `answers` are torch's to looks, each an object or an error."""

    def __init__(self, monkeypatch):
        self.asked, self.looks, self.line, self.listed = [], [], WHOLE, LISTED
        self.answers = [SLICE]
        self.now = 1000.0
        monkeypatch.setattr(node.torch.version, "cuda", "13.0")
        monkeypatch.setattr(node, "_nvidia_smi", self._nvidia_smi)
        monkeypatch.setattr(node.subprocess, "run", self._look)
        monkeypatch.setattr(node.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(node, "_looks", [])
        monkeypatch.setattr(node, "_seen", [])
        for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
            monkeypatch.delenv(name, raising=False)

    def _nvidia_smi(self, *arguments):
        if arguments == ("-L",):
            return self.listed
        self.asked.append(arguments)
        return [self.line]

    def _look(self, _command, *, env, **_options):
        self.looks.append(env)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(returncode=0, stdout=json.dumps(answer))


@pytest.fixture
def machine(monkeypatch):
    """One whole GPU, one in slices, another whole one."""
    return Machine(monkeypatch)


def test_a_gpu_is_described_by_what_nvidia_smi_prints():
    """Name, memory in bytes, driver; no slice"""
    facts = gpu_facts("NVIDIA H100 80GB HBM3, 81559, 80995, 570.86.15")
    assert (facts.device, facts.driver, facts.mig_slice) == ("NVIDIA H100 80GB HBM3", "570.86.15", None)
    assert (facts.memory_total_bytes, facts.memory_free_bytes) == (81559 * 2**20, 80995 * 2**20)


@pytest.mark.parametrize(
    ("visible", "asked_for", "is_slice"),
    [
        (None, None, False),
        ("0,1", "--id=0", False),
        ("10", "--id=10", False),
        ("GPU-2cc", "--id=GPU-2cc", False),
        ("1", None, True),
        ("GPU-1bb2", None, True),
        ("MIG-3,MIG-2", None, True),
    ],
)
def test_the_device_that_is_visible_first_is_the_one_that_is_described(
    machine, monkeypatch, visible, asked_for, is_slice
):
    """By its own lines: slices of another GPU are not its slices, and a slice's memory is not the GPU's"""
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    facts = node_facts()
    if is_slice:
        assert (facts.mig_slice, facts.memory_total_bytes, machine.asked) == ("MIG 3g.40gb", 100, [])
    else:
        assert (facts.mig_slice, facts.memory_total_bytes) == (None, 81559 * 2**20)
        assert machine.asked[0][0] == (asked_for or machine.asked[0][0])
        assert machine.looks == []


@pytest.mark.parametrize("visible", ["", "-1", "-1,0"])
def test_hidden_gpus_are_none(machine, monkeypatch, visible):
    """CUDA sees no device: the node is its machine"""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert node_facts().device_kind == "cpu"


def test_without_a_gpu_the_node_is_its_machine(machine, monkeypatch):
    monkeypatch.setattr(node, "_nvidia_smi", lambda *_arguments: [])
    assert node_facts().device == "cpu"


def test_a_gpu_that_does_not_answer_does_not_become_the_machines_memory(
    machine, monkeypatch, tmp_path, capfd
):
    """Its driver is busy, or it fell off the bus: the agent asks for no job until it is told of again"""
    agent = Agent(AgentOptions(planner_url="http://127.0.0.1:9", node="a", work_dir=tmp_path))
    registered = []
    monkeypatch.setattr(agent._link, "register", registered.append)
    monkeypatch.setattr(agent._link, "claim_probe", lambda: None)
    monkeypatch.setattr(agent._link, "claim", lambda **_told: None)
    agent._round()
    smi = node._nvidia_smi
    monkeypatch.setattr(node, "_nvidia_smi", lambda *_arguments: [])
    machine.now += REGISTER_SECONDS
    agent._round()
    assert agent._pause > 0
    assert "tells nothing any more of this node's NVIDIA A100-SXM4-80GB" in capfd.readouterr().err
    monkeypatch.setattr(node, "_nvidia_smi", smi)
    agent._round()
    assert agent._pause == 0
    assert [facts["device_kind"] for facts in registered] == ["cuda", "cuda"]
    agent._link.close()


@pytest.mark.parametrize("line", ["NVIDIA A100, [N/A], [N/A], 570", "NVIDIA A100, 81559", WHOLE])
def test_a_container_with_a_slice_is_told_apart_from_the_whole_gpu(machine, monkeypatch, line):
    """By its runtime's variable, or by memory that nvidia-smi does not tell"""
    machine.line, machine.listed = line, LISTED[:1]
    if line == WHOLE:
        monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "MIG-2")
    assert node_facts().mig_slice == "MIG 3g.40gb"


def test_a_slice_is_looked_at_again_but_not_always(machine, monkeypatch):
    """Its free memory changes; one that is too full for a look, or does not answer in time, is as it was"""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-2")
    machine.answers = [SLICE, {**SLICE, "memory_free_bytes": 7}, subprocess.TimeoutExpired("python", 120.0)]
    found = []
    for later in (0.0, 1.0, node.LOOK_AGAIN_SECONDS, node.LOOK_AGAIN_SECONDS):
        machine.now += later
        found.append(node_facts().memory_free_bytes)
    assert found == [90, 90, 7, 7]
    assert len(machine.looks) == 3
    assert machine.looks[0]["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_a_slice_that_was_never_seen_is_none(machine, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-2")
    machine.answers = [OSError("no such python")]
    assert node_facts().device_kind == "cpu"


def test_children_count_gpus_as_the_agent_does():
    """By the bus; the node's key is not theirs"""
    given = {API_KEY: "secret", "PATH": "/bin"}
    found = environment_of_children(given)
    assert API_KEY not in found
    assert (found["PATH"], found["CUDA_DEVICE_ORDER"]) == ("/bin", "PCI_BUS_ID")
    own = {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}
    assert environment_of_children(own) == own


def test_an_agent_gives_away_no_more_than_it_was_told():
    """The registration is cut to the limit; without one it is the device's"""
    facts = node_facts()
    assert 0 < facts.memory_free_bytes <= facts.memory_total_bytes
    limited = facts.registration(most_bytes=1000)
    assert (limited["memory_total_bytes"], limited["memory_free_bytes"]) == (1000, 1000)
    assert facts.registration()["memory_total_bytes"] == facts.memory_total_bytes
    assert "torch" in limited
