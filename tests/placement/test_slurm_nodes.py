"""Nodes as Slurm lists them become holes."""

from __future__ import annotations

import pytest

from planner_service.contract.placement import HoleRecord
from planner_service.placement.slurm_nodes import UnknownGpuMemory, slurm_holes

LISTING = """\
NodeName=g1 Arch=x86_64 CPUTot=32 Gres=gpu:a100:4,gpu:t4:1(S:0) RealMemory=515000 State=IDLE+CLOUD
NodeName=g2 CPUTot=32 Gres=gpu:2 RealMemory=128000 AllocMem=0 State=MIXED
NodeName=c1 CPUTot=64 Gres=(null) RealMemory=256000 State=ALLOCATED
NodeName=g3 CPUTot=32 Gres=gpu:b200:8 RealMemory=2000000 State=DOWN*+NOT_RESPONDING
"""
MEMORY = {"a100": "80GiB", "t4": "15GiB", "gpu": "24GiB"}


def test_every_node_in_service_has_its_main_memory_and_its_gpus_by_type():
    holes = slurm_holes(LISTING, MEMORY)
    assert [(hole["name"], hole["memory_total_bytes"], hole.get("count", 1)) for hole in holes] == [
        ("g1/memory", 515_000 * 2**20, 1),
        ("g1/a100", "80GiB", 4),
        ("g1/t4", "15GiB", 1),
        ("g2/memory", 128_000 * 2**20, 1),
        ("g2/gpu", "24GiB", 2),
        ("c1/memory", 256_000 * 2**20, 1),
    ]


def test_the_holes_are_what_the_placement_takes():
    assert all(HoleRecord.model_validate(hole) for hole in slurm_holes(LISTING, MEMORY))


def test_types_of_unknown_memory_are_named_with_what_to_add():
    with pytest.raises(
        UnknownGpuMemory, match=r"type gpu, t4: add --gpu-memory gpu=80GiB --gpu-memory t4=80GiB"
    ):
        slurm_holes(LISTING, {"a100": "80GiB"})
