"""The words for each scheduler name devices that hold the job, and never trust a sum."""

from __future__ import annotations

import re

import pytest

from planner_service.placement import Demand, Site, TypeNames, acceptable_types, words_of
from planner_service.placement.wanted import mebibytes
from tests.placement.sites import GIB, curve, hole

CURVE = curve((10, 200), (30, 100))
A100 = TypeNames(slurm="a100", kubernetes="NVIDIA-A100-SXM4-80GB", ray="A100")
H100 = TypeNames(slurm="h100", kubernetes="NVIDIA-H100", ray="H100")


def words(holes, devices=1, **demand):
    site = Site.of(holes)
    return words_of(acceptable_types(site, Demand(devices=devices, **demand), CURVE), devices)


def test_no_type_no_words():
    assert words([hole(gib=1)]) is None


def test_slurm_is_told_each_type_and_all_at_once():
    found = words([hole("a", 80, names=A100, count=4), hole("h", 80, names=H100, count=4)], devices=2).slurm
    assert found.alternatives == (
        ("--gres=gpu:a100:2",),
        ("--gres=gpu:h100:2",),
        ("--gres=gpu:2", "--constraint=a100|h100"),
    )


def test_slurm_names_a_slice_and_leaves_fractions_out():
    found = words([hole("m", 20, mig_slice="2g.20gb"), hole("f", 80, fraction=0.5)]).slurm
    assert found.alternatives == (("--gres=gpu:2g.20gb:1",),)
    assert "isolates no memory" in found.notes[0]


def test_slurm_is_asked_for_main_memory_on_cpus():
    found = words([hole("c", 80, device_kind="cpu")], device_kind="cpu").slurm
    assert found.alternatives == (("--ntasks=1", f"--mem={30 * 1024}M"),)


def test_main_memory_of_a_node_is_that_of_all_its_ranks():
    found = words([hole("c", 80, device_kind="cpu", count=4)], device_kind="cpu", devices=2)
    assert found.slurm.alternatives == (("--nodes=1", "--ntasks=2", f"--mem={2 * 30 * 1024}M"),)
    assert found.kubernetes.alternatives[0].limits == {"memory": f"{2 * 30 * 1024}Mi"}
    assert found.ray.alternatives == ({"num_cpus": 2.0, "memory": 2.0 * 30 * GIB},)


def test_kubernetes_has_one_alternative_per_resource_with_the_products_that_will_do():
    holes = [
        hole("a", 80, names=A100),
        hole("h", 80, names=H100),
        hole("m", 20, device="a30", mig_slice="2g.20gb+me"),
    ]
    gpus, slices = words(holes).kubernetes.alternatives
    assert gpus.limits == {"nvidia.com/gpu": "1"}
    assert gpus.node_affinity == {
        "nodeSelectorTerms": [
            {
                "matchExpressions": [
                    {
                        "key": "nvidia.com/gpu.product",
                        "operator": "In",
                        "values": ["NVIDIA-A100-SXM4-80GB", "NVIDIA-H100"],
                    }
                ]
            }
        ]
    }
    assert slices.limits == {"nvidia.com/mig-2g.20gb.me": "1"}
    assert slices.node_affinity is None


def selected(expression, nominal_bytes):
    """What the CEL expression says of a device, by hand: quantities compare as numbers."""
    found = re.fullmatch(
        r"device\.driver == 'gpu\.nvidia\.com' && device\.capacity\['gpu\.nvidia\.com'\]\.memory"
        r"\.compareTo\(quantity\('(\d+)Mi'\)\) >= 0",
        expression,
    )
    return nominal_bytes >= int(found[1]) * 2**20


def test_the_claim_selects_exactly_the_devices_that_hold_the_job():
    """By nominal memory: what a device has left after its driver and the context must be the budget"""
    expression = words(
        [hole("a", 80, driver_reserve_ratio=0.04, context_bytes=GIB)], maximum_slowdown_ratio=1.0
    ).kubernetes.device_selector
    for mib in range(31 * 1024, 34 * 1024, 16):
        device = hole("d", mib / 1024, driver_reserve_ratio=0.04, context_bytes=GIB)
        holds = device.empty_bytes >= 30 * GIB
        assert not selected(expression, mib * 2**20) or holds
        assert selected(expression, mib * 2**20 + 2**21) or not holds


def test_sharing_schedulers_are_told_the_limit_where_fractions_will_do():
    found = words([hole("f", 40, fraction=0.5)])
    assert found.kubernetes.gpu_memory_annotation == str(mebibytes(found.wanted.limit_bytes))
    assert words([hole("a", 80)]).kubernetes.gpu_memory_annotation is None


def test_ray_is_told_types_and_fractions():
    found = words([hole("a", 80, names=A100), hole("f", 40, device="T4", fraction=0.5)]).ray
    assert found.alternatives == (
        {"num_gpus": 1.0, "accelerator_type:A100": 0.001},
        {"num_gpus": 0.5, "accelerator_type:T4": 0.001},
    )


def test_ray_is_not_told_any_gpu_for_slices_and_types_without_a_name():
    holes = [hole("m", 40, device="A100", mig_slice="3g.40gb"), hole("u", 80), hole("a", 80, names=A100)]
    found = words(holes).ray
    assert found.alternatives == ({"num_gpus": 1.0, "accelerator_type:A100": 0.001},)
    assert any("without an accelerator_type are left out" in note for note in found.notes)


@pytest.mark.parametrize(("count", "given"), [(1, True), (2, False)])
def test_ray_is_given_memory_only_where_a_sum_is_that_of_one_device(count, given):
    found = words([hole("a", 80, names=A100, count=count)]).ray
    assert (found.memory_mib is not None) == given
    assert any("sum over a node" in note for note in found.notes) != given


def test_the_request_of_the_words_holds_on_every_acceptable_type():
    """One type holds 30 GiB, the other only 10: the words ask for the plan that both hold"""
    found = words([hole("a", 80, device="big"), hole("b", 12, device="small", context_bytes=GIB)])
    assert found.wanted.tightest.budget_bytes == 10 * GIB
    assert found.wanted.request_bytes == 11 * GIB
