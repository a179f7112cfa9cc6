"""Nodes as Slurm lists them become holes."""

from __future__ import annotations

import pytest

from planner_service.contract.holes import HoleRecord
from planner_service.placement import Demand, Site, acceptable_types, words_of
from planner_service.placement.slurm_nodes import UnknownGpuMemory, slurm_holes
from planner_service.planning.placement import hole_of
from tests.placement.sites import curve

CURVE = curve((10, 200))

LISTING = """\
NodeName=g1 Arch=x86_64 CPUTot=32 Gres=gpu:a100:4,gpu:t4:1(S:0) RealMemory=515000 State=IDLE+CLOUD
NodeName=g2 CPUTot=32 Gres=gpu:2 RealMemory=128000 AllocMem=0 State=MIXED
NodeName=c1 CPUTot=64 Gres=(null) RealMemory=256000 State=ALLOCATED
NodeName=g4 CPUTot=32 Gres=gpu:1g.10gb:7,gpu:2g.20gb+me:1(S:0) RealMemory=1000 State=IDLE+CLOUD+POWERED_DOWN
NodeName=g3 CPUTot=32 Gres=gpu:b200:8 RealMemory=2000000 State=DOWN*+NOT_RESPONDING
"""
MEMORY = {"a100": "80GiB", "t4": "15GiB", "gpu": "24GiB", "1g.10gb": "10GiB", "2g.20gb+me": "20GiB"}


def test_every_node_in_service_has_its_main_memory_and_its_gpus_by_type():
    holes = slurm_holes(LISTING, MEMORY)
    assert [(hole["name"], hole["memory_total_bytes"], hole.get("count", 1)) for hole in holes] == [
        ("g1/memory", 515_000 * 2**20, 1),
        ("g1/a100", "80GiB", 4),
        ("g1/t4", "15GiB", 1),
        ("g2/memory", 128_000 * 2**20, 1),
        ("g2/gpu", "24GiB", 2),
        ("c1/memory", 256_000 * 2**20, 1),
        ("g4/memory", 1000 * 2**20, 1),
        ("g4/1g.10gb", "10GiB", 7),
        ("g4/2g.20gb+me", "20GiB", 1),
    ]


@pytest.mark.parametrize(
    ("state", "serves"),
    [
        ("IDLE+CLOUD+POWERED_DOWN", True),
        ("IDLE~", True),
        ("MIXED+PLANNED", True),
        ("DOWN", False),
        ("DOWN*+CLOUD", False),
        ("IDLE+NOT_RESPONDING", False),
        ("FAILING", False),
    ],
)
def test_a_node_that_is_powered_down_is_started_when_it_is_wanted_and_one_that_is_down_is_not(state, serves):
    holes = slurm_holes(f"NodeName=n RealMemory=1000 Gres=(null) State={state}", {})
    assert bool(holes) == serves


def test_slices_are_slices_and_gpus_without_a_type_are_asked_for_without_one():
    records = [HoleRecord.model_validate(hole) for hole in slurm_holes(LISTING, MEMORY)]
    by_name = {record.name: hole_of(record, context_bytes=0, driver_reserve_ratio=0.0) for record in records}
    assert by_name["g4/1g.10gb"].relative_speed == pytest.approx(1 / 7)
    words = {
        name: words_of(acceptable_types(Site.of([by_name[name]]), Demand(), CURVE), 1).slurm.alternatives
        for name in ("g2/gpu", "g4/2g.20gb+me")
    }
    assert words == {"g2/gpu": (("--gres=gpu:1",),), "g4/2g.20gb+me": (("--gres=gpu:2g.20gb+me:1",),)}


def test_the_holes_are_what_the_placement_takes():
    assert all(HoleRecord.model_validate(hole) for hole in slurm_holes(LISTING, MEMORY))


def test_types_of_unknown_memory_are_named_with_what_to_add():
    with pytest.raises(
        UnknownGpuMemory,
        match=r"type gpu, t4: add --gpu-memory gpu=SIZE --gpu-memory t4=SIZE, each SIZE such as 80GiB",
    ):
        slurm_holes(LISTING, {kind: "80GiB" for kind in MEMORY if kind not in {"gpu", "t4"}})
    assert {hole["device"] for hole in slurm_holes(LISTING, {}, with_gpus=False)} == {"cpu"}
