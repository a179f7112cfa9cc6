"""What is planned bounds what CUDA's allocator counts, whatever was allocated before."""

from __future__ import annotations

import gc
import threading
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from executor import measure
from executor.memory import cuda_memory
from executor.memory.cuda_memory import (
    Reading,
    expandable_segments,
    most_block_bytes,
    most_held,
    nothing_else_released,
    workspaces_ready,
)
from executor.memory.sizes import rounded_bytes
from executor.memory.trace import paused
from executor.probing.action_costs import ActionBytes, bytes_of_actions
from planner_service.chain import Advance, Tape
from tests.executor.cuda_allocator import MIB, Allocator, Block, in_the_place_of_cuda

CUDA = torch.device("cuda", 3)
SIZES = st.one_of(st.integers(1, MIB), st.integers(MIB + 1, 30 * MIB))
STEPS = st.lists(st.tuples(SIZES, st.integers(0, 5)), max_size=40)
"""Sizes to allocate; after each, up to so many of the oldest blocks are given back."""


def run(allocator: Allocator, steps: list[tuple[int, int]]) -> list[Block]:
    """What is still live afterwards."""
    live: list[Block] = []
    for size, given_back in steps:
        live.append(allocator.allocate(size))
        for _ in range(min(given_back, len(live) - 1)):
            allocator.free(live.pop(0))
    return live


@given(before=STEPS, steps=STEPS, is_expandable=st.booleans())
def test_no_history_makes_the_allocator_count_more_than_is_planned(before, steps, is_expandable):
    """Each live block, and the peak; with expandable segments nothing is planned in vain"""
    allocator = Allocator(is_expandable=is_expandable)
    with pytest.MonkeyPatch.context() as patch:
        in_the_place_of_cuda(patch, allocator)
        for block in run(allocator, before):
            allocator.free(block)
        allocator.reset_peaks()
        live = run(allocator, steps)
        planned = sum(most_block_bytes(block.requested) for block in live)
        counted = allocator.stats["allocated_bytes"]["all"]
        assert counted["current"] <= planned == most_held(CUDA).now_bytes
        assert counted["peak"] <= most_held(CUDA).peak_bytes
        if is_expandable:
            assert Reading(counted["current"], counted["peak"]) == most_held(CUDA)


@pytest.mark.parametrize(
    ("size", "expandable", "plain"),
    [
        (1, 512, 512),
        (700, 1024, 1024),
        (MIB, MIB, MIB),
        (MIB + 1, MIB + 512, 2 * MIB + 512),
        (2 * MIB, 2 * MIB, 3 * MIB + 511),
    ],
)
def test_blocks_are_counted_at_the_most_that_they_can_be(monkeypatch, size, expandable, plain):
    """Multiples of 512 bytes; a large block may be left a MiB longer unless segments can expand"""
    for is_expandable, expected in ((True, expandable), (False, plain)):
        monkeypatch.setattr(cuda_memory, "cuts_every_block", lambda answer=is_expandable: answer)
        assert rounded_bytes(size, CUDA) == expected
    assert rounded_bytes(size, torch.device("cpu")) == size


def test_the_plan_of_a_used_cache_is_that_of_a_fresh_one(monkeypatch):
    """A block of 9 MiB leaves a gap in which one of 8.5 MiB is not cut: the probe counts alike"""
    found = []
    for before in ((), (9 * MIB, 10 * MIB)):
        allocator = Allocator()
        in_the_place_of_cuda(monkeypatch, allocator)
        held = [allocator.allocate(size) for size in before]
        for block in held[:1]:
            allocator.free(block)
        allocator.reset_peaks()

        def actions(observe, allocator=allocator):
            observe(Advance(1, 1))
            block = allocator.allocate(17 * MIB // 2)
            workspace = allocator.allocate(100)
            allocator.free(workspace)
            observe(Advance(2, 2))
            allocator.free(block)
            observe(None)

        pieces, peak_bytes, _ = bytes_of_actions(actions, CUDA)
        handed_out = allocator.stats["allocated_bytes"]["all"]["current"]
        found.append((pieces, peak_bytes, handed_out))
    assert found[0][:2] == found[1][:2]
    (first, second), _, _ = found[0]
    assert first.after_bytes == second.before_bytes == 17 * MIB // 2 + MIB + 511
    assert first.peak_bytes == first.after_bytes + 512


def test_a_measurement_tells_blocks_and_what_was_asked_for(monkeypatch):
    """An older block is not counted; the peak is that of the function, not of what came before it"""
    allocator = Allocator()
    in_the_place_of_cuda(monkeypatch, allocator)
    allocator.free(allocator.allocate(25 * MIB))
    older = allocator.allocate(5 * MIB)

    def function():
        allocator.free(allocator.allocate(700))
        allocator.free(older)
        return "result"

    found = measure(function, device="cuda")
    assert (found.peak_bytes, found.requested_peak_bytes, found.result) == (1024, 700, "result")


def test_what_is_probed_within_a_measurement_does_not_count(monkeypatch):
    """Nor does what a probe leaves behind; peaks before and after it do, although it resets them"""
    allocator = Allocator()
    in_the_place_of_cuda(monkeypatch, allocator)

    def function():
        first = allocator.allocate(3000)
        allocator.free(first)
        with paused():
            allocator.reset_peaks()
            allocator.allocate(32 * MIB)  # a library's workspace, which stays
            allocator.free(allocator.allocate(100 * MIB))
            with paused():  # as each recording of a rehearsal does
                allocator.reset_peaks()
            allocator.free(allocator.allocate(60 * MIB))
        assert measure(lambda: allocator.allocate(5000), device="cuda").requested_peak_bytes == 5000
        allocator.allocate(200)

    assert measure(function, device="cuda").requested_peak_bytes == 3000


def test_who_measures_the_cpu_where_there_is_cuda_is_told(monkeypatch):
    """Nothing is added on the device, and 0 bytes would be taken for the answer"""
    in_the_place_of_cuda(monkeypatch, allocator := Allocator())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.warns(UserWarning, match="nothing was added on cuda:3.*give device='cpu'"):
        assert measure(lambda: torch.zeros(100)).peak_bytes == 0
    assert measure(lambda: torch.zeros(100), device="cpu").peak_bytes == 400
    assert measure(lambda: allocator.allocate(100)).peak_bytes == 512
    assert measure(lambda: None, device="cuda").peak_bytes == 0


def test_workspaces_of_another_thread_or_stream_are_no_part_of_a_plan(monkeypatch):
    """They are made once for each, before anything is counted, and not where a graph is recorded"""
    allocator, stream = Allocator(), SimpleNamespace(cuda_stream=7)
    in_the_place_of_cuda(monkeypatch, allocator)
    monkeypatch.setattr(cuda_memory, "_of_this_thread", threading.local())
    monkeypatch.setattr(cuda_memory, "warm_up", lambda _device: allocator.allocate(64 * MIB))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: stream)
    monkeypatch.setattr(torch.cuda, "device", lambda _device: nullcontext())
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: stream.cuda_stream == 9)

    def step():
        workspaces_ready(torch.device("cuda"))
        allocator.free(allocator.allocate(700))

    def found():
        measured.append(
            (
                measure(step, device="cuda").requested_peak_bytes,
                allocator.stats["allocated_bytes"]["all"]["current"] // MIB,
            )
        )

    measured: list[tuple[int, int]] = []
    found()
    found()
    stream.cuda_stream = 8
    found()
    another = threading.Thread(target=found)
    another.start()
    another.join()
    stream.cuda_stream = 9
    found()
    assert measured == [(700, 64), (700, 64), (700, 128), (700, 192), (700, 192)]


class InACycle:
    """Memory that only a garbage collection gives back."""

    def __init__(self, allocator: Allocator, size: int) -> None:
        self._allocator, self._block, self._itself = allocator, allocator.allocate(size), self

    def __del__(self) -> None:
        self._allocator.free(self._block)


def test_older_tensors_in_cycles_are_not_released_while_actions_are_read(monkeypatch):
    """What went before a probe would hide as many bytes of a tape, which no plan could carry"""
    allocator = Allocator()
    in_the_place_of_cuda(monkeypatch, allocator)
    InACycle(allocator, 40 * MIB)

    def actions(observe):
        observe(Tape(1, 1))
        allocator.allocate(3000)
        assert not gc.isenabled()
        observe(None)

    (piece,), peak_bytes, _ = bytes_of_actions(actions, CUDA)
    assert gc.isenabled()
    assert piece == ActionBytes(Tape(1, 1), 0, 3072, 3072)
    assert peak_bytes == 3072


def test_collections_stay_off_where_they_were_off():
    """And come back on after an error"""
    gc.disable()
    try:
        with nothing_else_released():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
    with pytest.raises(KeyError), nothing_else_released():
        raise KeyError
    assert gc.isenabled()


def test_older_tensors_in_cycles_are_released_before_a_measurement(monkeypatch):
    """Rather than in the middle, where they would hide what the function adds"""
    allocator = Allocator()
    in_the_place_of_cuda(monkeypatch, allocator)
    InACycle(allocator, 40 * MIB)

    def function():
        gc.collect()
        return allocator.allocate(3000)

    assert measure(function, device="cuda").requested_peak_bytes == 3000


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("2.6.0+cu124", "PYTORCH_CUDA_ALLOC_CONF"),
        ("2.9.1", "PYTORCH_ALLOC_CONF"),
        ("2.11.0", "PYTORCH_ALLOC_CONF"),
    ],
)
def test_expandable_segments_are_asked_for_by_the_name_that_torch_reads(monkeypatch, version, name):
    """Unless the allocator is set up by its user"""
    monkeypatch.setattr(torch, "__version__", version)
    assert expandable_segments({}) == {name: "expandable_segments:True"}
    assert expandable_segments({"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64"}) == {}


@pytest.mark.parametrize(
    ("snapshot", "answer"),
    [
        ({"allocator_settings": {"expandable_segments": True}}, True),
        ({"allocator_settings": {"expandable_segments": False}}, False),
        ({"segments": []}, False),
    ],
)
def test_the_allocator_is_asked_how_it_cuts(monkeypatch, snapshot, answer):
    """What it does not tell is taken for no; without a device nothing is asked"""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda.memory, "_snapshot", lambda: snapshot)
    assert cuda_memory.cuts_every_block.__wrapped__() is answer
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cuda_memory.cuts_every_block.__wrapped__() is False


def test_before_cuda_is_used_nothing_is_counted(monkeypatch):
    monkeypatch.setattr(torch.cuda, "memory_stats_as_nested_dict", lambda _device: {})
    assert most_held(CUDA) == (0, 0)
