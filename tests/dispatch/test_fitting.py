"""Engines are asked for devices that hold the job, by memory of each one, in their own words."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from planner_service.contract.jobs import Job, JobRequest, NeededBytes
from planner_service.dispatch import EngineRefused, resources_for
from planner_service.placement import TypeNames
from tests.placement.sites import GIB, hole


def job(gib, budget=1000):
    request = JobRequest.model_validate(
        {
            "model": {"kind": "lstm", "hidden_size": 8},
            "sequence": {"length": 5, "batch_size": 2},
            "training": {"iterations": 3},
            "budget": budget,
        }
    )
    now = datetime.now(UTC)
    return Job(
        id="j",
        name="j",
        request=request,
        state="queued",
        budget=budget,
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
        (10, "slurm", ("t4", "a100", "a30")),
        (20, "slurm", ("a100", "a30")),
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


def test_the_quickest_type_comes_first_then_the_least_and_no_share_of_a_device():
    holes = [
        hole("s", 40, device="A100", mig_slice="3g.40gb"),
        hole("l", 80, device="A100"),
        hole("m", 40, device="L40"),
        hole("f", 80, device="H100", fraction=0.5),
    ]
    found = resources_for(job(20), "kubernetes", "cuda", holes)
    assert found.device_types == ("L40", "A100", "3g.40gb")


def test_a_name_that_smaller_devices_go_by_too_is_not_asked_for():
    """Ray calls slices and whole devices alike where the file of holes says so"""
    shared = TypeNames(ray="A100")
    holes = [hole("a", 80, device="A100", names=shared), hole("s", 10, mig_slice="1g.10gb", names=shared)]
    found = resources_for(job(20), "ray", "cuda", holes)
    assert found.device_types == ()
    with pytest.raises(EngineRefused, match="no name"):
        found.types_for("ray")


def test_a_budget_of_what_is_free_asks_for_the_leanest_plan_and_what_the_worker_leaves():
    """The worker is told, and takes nine tenths of it; a device of its own it takes whole"""
    found = resources_for(job(10, "free"), "slurm", "cpu", HOLES)
    assert found.memory_bytes * 0.9 > 10 * GIB
    assert found.request_bytes == found.memory_bytes
    assert resources_for(job(10, "free"), "slurm", "cuda", HOLES).memory_bytes is None
    assert resources_for(job(10, "free"), "ray", "cuda", []).memory_bytes * 0.9 > 10 * GIB
    assert resources_for(job(10), "slurm", "cpu", HOLES).memory_bytes == 10 * GIB
