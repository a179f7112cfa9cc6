"""What may be planned under a cap on what CUDA's allocator reserves, and how the cap is set."""

from __future__ import annotations

import pytest
import torch

from executor.attempt.memory_cap import (
    OutOfMemory,
    data_bytes,
    memory_cap,
    missing_after,
    missing_bytes,
    slack_bytes,
)
from executor.memory import hard_cap as caps
from executor.memory.cuda_memory import indexed
from executor.memory.device import free_bytes, most_reserved_bytes
from executor.memory.hard_cap import (
    SEGMENTS_BYTES,
    cap_bytes_for,
    hard_cap,
    plannable_bytes,
    reserved_at_most,
)
from tests.executor.cuda_allocator import MIB, TOTAL_BYTES, Allocator, in_the_place_of_cuda

WORKSPACES_BYTES = 64 * MIB


@pytest.fixture
def cuda(monkeypatch):
    """A device without memory: what caps were set on it. Warming up takes two workspaces."""
    allocator = Allocator()
    called = in_the_place_of_cuda(monkeypatch, allocator)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(caps, "warm_up", lambda _device: allocator.allocate(WORKSPACES_BYTES))
    return called


@pytest.mark.parametrize(("is_expandable", "ratio"), [(True, 0.95), (False, 0.9)])
@pytest.mark.parametrize("cap_bytes", [SEGMENTS_BYTES + 2, 2**27, 2**33])
def test_segments_and_a_share_for_gaps_are_set_aside(monkeypatch, cap_bytes, is_expandable, ratio):
    """A twentieth where segments can expand, a tenth where they cannot; a cap is found for any budget"""
    monkeypatch.setattr(caps, "cuts_every_block", lambda: is_expandable)
    planned_bytes = plannable_bytes(cap_bytes)
    assert 0 < planned_bytes <= ratio * (cap_bytes - SEGMENTS_BYTES)
    assert cap_bytes <= cap_bytes_for(planned_bytes) + 1
    assert plannable_bytes(cap_bytes_for(planned_bytes)) >= planned_bytes


def test_what_is_free_is_planned_for_less_gaps_and_workspaces(monkeypatch):
    """They are made before it is seen what is left; next to nothing is left of next to nothing"""
    left = [2**30]

    def workspaces_ready(_device: torch.device) -> None:
        left[0] -= WORKSPACES_BYTES

    monkeypatch.setattr(caps, "cuts_every_block", lambda: False)
    monkeypatch.setattr(caps, "workspaces_ready", workspaces_ready)
    monkeypatch.setattr(caps, "free_bytes", lambda _device: left[0])
    found = caps.free_for_plans(torch.device("cuda"))
    assert found == plannable_bytes(2**30 - WORKSPACES_BYTES) < 0.9 * 2**30
    left[0] = WORKSPACES_BYTES + 1
    assert 0 < caps.free_for_plans(torch.device("cuda")) < 2**10
    assert caps.free_for_plans(torch.device("cpu")) == 1


def test_a_cap_below_the_allocators_segments_is_refused() -> None:
    with pytest.raises(ValueError, match="23068672"):
        plannable_bytes(2**20)


@pytest.mark.parametrize(("device", "index"), [("cuda", 3), ("cuda:1", 1), (torch.device("cuda"), 3)])
def test_the_cap_is_set_on_a_device_with_an_index(cuda, device, index):
    """`cuda` is the current device; the workspaces of the matrix library are there before, and not counted"""
    with hard_cap("1GiB", device) as planned_bytes:
        assert planned_bytes == plannable_bytes(2**30)
        (share, where), *others = cuda.fractions
        assert share * TOTAL_BYTES == pytest.approx(WORKSPACES_BYTES + 2**30)
        assert (where, others) == (torch.device("cuda", index), [])
    assert cuda.fractions[1:] == [(1.0, torch.device("cuda", index))]


def test_a_cap_goes_with_the_exception_that_leaves_it(cuda):
    with pytest.raises(KeyError), hard_cap("1GiB"):
        raise KeyError
    assert cuda.fractions[-1][0] == 1.0


def test_caps_and_limits_within_each_other_all_hold(cuda, monkeypatch):
    """A wider cap lifts no narrower limit; after a cap the limits around it are back; a budget that is free
    is what they leave
    """
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (TOTAL_BYTES, TOTAL_BYTES))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _device: 24 * MIB)
    device = torch.device("cuda", 3)
    torch.cuda.set_per_process_memory_fraction(0.25, device)
    most = [most_reserved_bytes(device)]
    with hard_cap("6GiB"):
        most.append(most_reserved_bytes(device))
        with hard_cap("1GiB"):
            most.append(most_reserved_bytes(device))
            assert free_bytes(torch.device("cuda")) == most[-1] - 24 * MIB
        most.append(most_reserved_bytes(device))
    whole = TOTAL_BYTES // 4
    assert [*most, most_reserved_bytes(device)] == [whole, whole, 2 * WORKSPACES_BYTES + 2**30, whole, whole]


def test_a_cap_allows_its_last_byte(cuda, monkeypatch):
    """A share of the device is what torch is told, which makes bytes of it and leaves out what follows the
    point
    """
    monkeypatch.setattr(caps, "warm_up", lambda _device: None)
    for mib in range(2, 400, 2):
        with reserved_at_most(mib * MIB, torch.device("cuda", 3)) as before_bytes:
            share, _ = cuda.fractions[-1]
        assert int(share * TOTAL_BYTES) == before_bytes + mib * MIB


def test_an_attempts_cap_is_the_same_one(cuda):
    """With its slack; what the allocator refuses is OutOfMemory, with how far it went"""
    with pytest.raises(OutOfMemory) as refusal, memory_cap(MIB, torch.device("cuda")):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 500.00 MiB. GPU 0 has …")
    shares, devices = zip(*cuda.fractions, strict=True)
    assert shares[0] * TOTAL_BYTES == pytest.approx(WORKSPACES_BYTES + MIB + slack_bytes(MIB, "cuda"))
    assert shares[1] == 1.0
    assert set(devices) == {torch.device("cuda", 3)}
    assert refusal.value.excess_bytes == 500 * MIB - MIB - slack_bytes(MIB, "cuda")


def test_other_devices_are_as_they_were_given(cuda):
    assert indexed("cpu") == torch.device("cpu")
    assert indexed(torch.device("cuda", 0)) == torch.device("cuda", 0)


def test_a_device_that_refused_outside_a_cap_is_judged_by_its_own_bytes(cuda):
    """Not by the process's private memory, which a CUDA context alone makes large"""
    with reserved_at_most(100 * MIB, torch.device("cuda", 3)):
        error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
    assert missing_after(error, 2**30, 0) == missing_bytes(2**30, WORKSPACES_BYTES, "cuda")
    grown = missing_after(MemoryError(), 2**30, data_bytes())
    assert grown == pytest.approx(missing_bytes(2**30, 0, "cpu"), abs=64 * MIB)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_without_a_device_a_cap_is_refused_in_words() -> None:
    with pytest.raises(RuntimeError, match="budgets need none"), hard_cap("1GiB"):
        pass
