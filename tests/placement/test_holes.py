"""What training may hold in a hole, and how fast it is there, by the closed forms."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, floor

import pytest

from planner_service.contract.holes import HoleRecord
from tests.placement.sites import GIB, hole


def test_the_driver_the_context_and_the_neighbours_come_off():
    """Primes, so that no swapped term cancels out."""
    found = hole(gib=80, driver_reserve_ratio=0.03, context_bytes=7, memory_free_bytes=1009)
    assert found.reserve_bytes == ceil(80 * GIB * 0.03)
    assert found.empty_bytes == 80 * GIB - ceil(80 * GIB * 0.03) - 7
    assert found.available_bytes == 1009 - 7


def test_free_memory_is_never_more_than_the_driver_leaves():
    found = hole(gib=10, driver_reserve_ratio=0.1, memory_free_bytes=10 * GIB)
    assert found.available_bytes == 9 * GIB


def test_less_than_a_context_is_less_than_nothing():
    assert hole(context_bytes=100, memory_free_bytes=40).available_bytes == -60


def test_a_fraction_shares_memory_reserve_and_time():
    found = hole(gib=10, fraction=0.3, driver_reserve_ratio=0.04)
    assert found.empty_bytes == floor(10 * GIB * 0.3) - ceil(10 * GIB * 0.04 * 0.3)
    assert found.relative_speed == 0.3


@pytest.mark.parametrize(
    ("slice_name", "speed"), [("1g.10gb", 1 / 7), ("3g.40gb", 3 / 7), ("7g.80gb", 1.0), (None, 1.0)]
)
def test_a_mig_slice_is_as_fast_as_its_compute_slices(slice_name, speed):
    assert hole(mig_slice=slice_name).relative_speed == pytest.approx(speed)


def test_a_given_speed_wins():
    assert hole(mig_slice="1g.10gb", given_speed=0.4).relative_speed == 0.4


def test_main_memory_has_no_driver():
    found = hole(gib=4, device_kind="cpu", driver_reserve_ratio=0.04)
    assert found.available_bytes == 4 * GIB
    assert found.nominal_bytes(123) == 123


def test_a_limit_is_the_least_that_leaves_the_request_when_the_driver_has_taken_its_share():
    """So the limit of what fills a device is the device's own memory, whatever the numbers"""
    for ratio in (0.0, 0.03, 0.04, 0.5):
        for request_bytes in (1, 1000, 41 * GIB + 17, 2**61 + 1):
            device = hole(driver_reserve_ratio=ratio)
            limit = device.nominal_bytes(request_bytes)
            just, short = (replace(device, memory_total_bytes=size) for size in (limit, limit - 1))
            assert just.available_bytes >= request_bytes > short.available_bytes


@pytest.mark.parametrize(
    ("told", "kind"),
    [({}, "cuda"), ({"device": "cpu"}, "cpu"), ({"device": "cpu", "device_kind": "cuda"}, "cuda")],
)
def test_a_device_that_is_called_cpu_is_no_gpu_unless_it_is_said_to_be(told, kind):
    assert HoleRecord.model_validate({"name": "a", "memory_total_bytes": 1, **told}).device_kind == kind
