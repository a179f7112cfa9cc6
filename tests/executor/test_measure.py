"""`measure` counts every byte of tensor memory, inside kernels and out."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from executor import measure, measure_timeline
from executor.trace import paused

KIB = torch.zeros(256)  # 1,024 bytes of float32


def test_the_peak_is_exact() -> None:
    """Two tensors at once, one afterwards: the peak is two."""

    def run() -> torch.Tensor:
        first = torch.empty(1000, dtype=torch.uint8)
        second = torch.empty(500, dtype=torch.uint8)
        del first
        return second

    measured = measure(run)
    assert measured.peak_bytes == 1500
    assert measured.result.nbytes == 500


LEAN = """
import sys, torch
from executor.trace import record
record(lambda: torch.zeros(8))
print("torch._dynamo" in sys.modules)
"""


def test_a_recording_loads_no_compiler() -> None:
    """An attempt measures under its cap: what the tool itself takes is missing there."""
    done = subprocess.run([sys.executable, "-c", LEAN], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_what_was_allocated_before_does_not_count() -> None:
    """Releasing an older tensor neither counts nor makes room that was not there before."""
    held = [torch.empty(10_000, dtype=torch.uint8)]

    def run() -> torch.Tensor:
        held.clear()
        return torch.empty(300, dtype=torch.uint8)

    assert measure(run).peak_bytes == 300


def test_nothing_allocated_is_nothing_measured() -> None:
    assert measure(lambda: KIB.view(-1)).peak_bytes == 0


def test_workspace_inside_a_fused_kernel_is_seen() -> None:
    """More than inputs, outputs and saved tensors: oneDNN's LSTM allocates inside."""
    lstm = nn.LSTM(8, 8)
    x = torch.randn(20, 2, 8)
    with torch.no_grad():
        lstm(x)
        measured = measure(lambda: lstm(x))
    output, (hidden, cell) = measured.result
    assert measured.peak_bytes > output.nbytes + hidden.nbytes + cell.nbytes


def test_measurements_nest_by_pausing_the_outer_one() -> None:
    """An inner measurement hides its own allocations from the outer, as does `paused`."""

    def run() -> torch.Tensor:
        first = torch.empty(100, dtype=torch.uint8)
        assert measure(lambda: torch.empty(5000, dtype=torch.uint8)).peak_bytes == 5000
        with paused():
            torch.empty(7000, dtype=torch.uint8)
        second = torch.empty(50, dtype=torch.uint8)
        del first
        return second

    assert measure(run).peak_bytes == 150


def test_a_function_that_raises_ends_the_measurement() -> None:
    with pytest.raises(ZeroDivisionError):
        measure(lambda: 1 / 0)
    assert measure(lambda: torch.empty(9, dtype=torch.uint8)).peak_bytes == 9


def test_the_timeline_runs_through_the_peak_in_order() -> None:
    def run() -> None:
        first = torch.empty(100, dtype=torch.uint8)
        second = torch.empty(200, dtype=torch.uint8)
        del first, second

    timeline = measure_timeline(run)
    assert [point.live_bytes for point in timeline.points] == [100, 300, 200, 0]
    assert timeline.peak_bytes == 300
    seconds = [point.seconds for point in timeline.points]
    assert seconds == sorted(seconds)
    assert seconds[0] == 0


@pytest.mark.gpu
def test_on_cuda_the_allocators_own_peak_is_read() -> None:
    """Blocks of 512 bytes, as the caching allocator hands them out."""
    measured = measure(lambda: torch.empty(700, dtype=torch.uint8, device="cuda"))
    assert measured.peak_bytes == 1024
