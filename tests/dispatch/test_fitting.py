"""Engines are asked for devices that hold the job, by memory of each one, in their own words."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from planner_service.contract.jobs import Job, JobRequest, NeededBytes
from planner_service.dispatch import EngineRefused, resources_for
from planner_service.placement import TypeNames
from tests.placement.sites import GIB, hole


def job(gib):
    request = JobRequest.model_validate(
        {
            "model": {"kind": "lstm", "hidden_size": 8},
            "sequence": {"length": 5, "batch_size": 2},
            "training": {"iterations": 3},
            "budget": 1000,
        }
    )
    now = datetime.now(UTC)
    return Job(
        id="j",
        name="j",
        request=request,
        state="queued",
        budget=1000,
        needed_bytes=NeededBytes(cpu=gib * GIB, cuda=gib * GIB),
        engine="slurm",
        created_at=now,
        updated_at=now,
    )


HOLES = [
    hole("t", 16, device="Tesla-T4", names=TypeNames(slurm="t4")),
    hole("a", 80, device="NVIDIA-A100", names=TypeNames(slurm="a100", ray="A100")),
    hole("b", 40, device="NVIDIA-A100", names=TypeNames(slurm="a100", ray="A100")),
    hole("two", 30, device="A30", count=4),
    hole("c", 500, device_kind="cpu"),
]


@pytest.mark.parametrize(
    ("gib", "engine", "types"),
    [
        (10, "slurm", ("t4", "a100", "A30")),
        (20, "slurm", ("a100", "A30")),
        (20, "kubernetes", ("NVIDIA-A100", "A30")),
        (35, "ray", ("A100",)),
    ],
)
def test_types_whose_smallest_device_holds_the_job(gib, engine, types):
    assert set(resources_for(job(gib), engine, "cuda", HOLES).device_types) == set(types)


def test_no_sum_over_a_node_is_trusted():
    """Four of 30 GiB are 120, and one A100 has 80, but another only 40"""
    with pytest.raises(EngineRefused, match=rf"largest cuda device .* {80 * GIB} .* bytes are missing"):
        resources_for(job(100), "slurm", "cuda", HOLES)
    with pytest.raises(EngineRefused):
        resources_for(job(60), "slurm", "cuda", HOLES)


def test_without_holes_only_the_bytes_are_told():
    found = resources_for(job(10), "slurm", "cuda", [])
    assert found.device_types == ()
    assert found.request_bytes == 10 * GIB + 512 * 2**20
    assert found.limit_bytes * 0.96 >= found.request_bytes


def test_main_memory_has_no_drivers_share():
    found = resources_for(job(10), "slurm", "cpu", HOLES)
    assert found.limit_bytes == found.request_bytes == 10 * GIB
