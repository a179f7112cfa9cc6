"""What a node says of itself."""

import pytest

pytest.importorskip("torch")

from executor.agent import node
from executor.agent.node import gpu_facts, node_facts


def test_a_gpu_is_described_by_what_nvidia_smi_prints():
    """Name, memory in bytes, driver; no slice where there is none"""
    facts = gpu_facts("NVIDIA H100 80GB HBM3, 81559, 80995, 570.86.15", ["GPU 0: NVIDIA H100 (UUID: GPU-1)"])
    assert (facts.device, facts.driver, facts.mig_slice) == ("NVIDIA H100 80GB HBM3", "570.86.15", None)
    assert (facts.memory_total_bytes, facts.memory_free_bytes) == (81559 * 2**20, 80995 * 2**20)


def test_a_mig_slice_is_named():
    """By the line that lists it"""
    listed = ["GPU 0: NVIDIA A100", "  MIG 1g.10gb     Device  0: (UUID: MIG-2)"]
    assert gpu_facts("NVIDIA A100, 81559, 80995, 570", listed).mig_slice == "MIG 1g.10gb"


def test_the_gpu_that_is_visible_is_the_one_that_is_asked_about(monkeypatch):
    """CUDA_VISIBLE_DEVICES goes to nvidia-smi; without a GPU the node is its machine"""
    asked = []

    def nvidia_smi(*arguments):
        asked.append(arguments)
        return ["NVIDIA H100, 81559, 80995, 570"] if "-L" not in arguments else []

    monkeypatch.setattr(node.torch.version, "cuda", "13.0")
    monkeypatch.setattr(node, "_nvidia_smi", nvidia_smi)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")
    assert node_facts().device_kind == "cuda"
    assert asked[0][0] == "--id=3"
    monkeypatch.setattr(node, "_nvidia_smi", lambda *_arguments: [])
    assert node_facts().device == "cpu"


def test_an_agent_gives_away_no_more_than_it_was_told():
    """The registration is cut to the limit; without one it is the device's"""
    facts = node_facts()
    assert 0 < facts.memory_free_bytes <= facts.memory_total_bytes
    limited = facts.registration(most_bytes=1000)
    assert (limited["memory_total_bytes"], limited["memory_free_bytes"]) == (1000, 1000)
    assert facts.registration()["memory_total_bytes"] == facts.memory_total_bytes
    assert "torch" in limited
