"""`measure` counts every byte of tensor memory, inside kernels and out."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from executor import measure, measure_timeline, unroll
from executor.errors import ProfilerBusy
from executor.memory import trace
from executor.memory.trace import paused

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
from executor.memory.trace import record
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


def test_what_is_recorded_within_a_pause_leaves_it_a_pause() -> None:
    """As a probe does, rehearsal by rehearsal: what it ran between them counted, a third of the peak"""

    def probing() -> None:
        with paused():
            for _ in range(2):
                assert measure(lambda: torch.ones(300)).peak_bytes == 1200
                kept.append(torch.ones(1000))
        kept.append(torch.ones(10))

    kept: list[torch.Tensor] = []
    assert measure(probing).peak_bytes == 40


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


THREADS = """
import threading, torch
from torch import nn
from executor import measure, unroll

x = torch.randn(60, 3, 6)

def work(cell, peaks):
    def step(h, x):
        h = cell(x, h)
        return h, h
    def train():
        unroll(step, torch.zeros(3, 6), x, module=cell, budget="200KiB")[0].sum().backward()
    train()
    cell.zero_grad()
    peaks.append(measure(train).peak_bytes)

# Made before: a thread that draws from the stream that all share looks like a step that does.
cells = [nn.GRUCell(6, 6) for _ in range(4)]
alone, together = [], []
work(cells[3], alone)
threads = [threading.Thread(target=work, args=(cell, together)) for cell in cells[:3]]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(together), max(*alone, *together) <= 200 * 1024)
"""


def test_threads_probe_and_measure_one_after_the_other() -> None:
    """There is one profiler in a process: first calls in several threads ended it."""
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "True"]


def test_who_waits_too_long_for_another_thread_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured may itself wait for the thread that wants to measure."""
    monkeypatch.setattr(trace, "MOST_WAIT_SECONDS", 0.05)
    refusals: list[str] = []

    def other() -> None:
        with pytest.raises(ProfilerBusy) as refusal:
            measure(lambda: torch.empty(9))
        refusals.append(str(refusal.value))

    def run() -> None:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    measure(run)
    assert "another thread" in refusals[0]
    assert measure(lambda: torch.empty(9, dtype=torch.uint8)).peak_bytes == 9


PROFILES = """
import torch
from torch import nn
from executor import measure, unroll
from executor.errors import ProfilerBusy

cell = nn.GRUCell(6, 6)
def step(h, x):
    h = cell(x, h)
    return h, h
def train(steps):
    x = torch.randn(steps, 3, 6)
    unroll(step, torch.zeros(3, 6), x, module=cell, budget="200KiB")[0].sum().backward()
def refused(*given):
    try: train(*given)
    except ProfilerBusy as refusal: return "before the profile begins" in str(refusal)

train(9)
with torch.profiler.profile() as first:
    train(9)
    print(refused(10))
    train(9)
train(10)
print(sum(event.count for event in first.key_averages() if event.key.startswith("aten::")) > 100)
with torch.profiler.profile(schedule=torch.profiler.schedule(wait=1, warmup=1, active=1)) as second:
    train(11)
    second.step()
    print(refused(12))
    second.step()
    print(refused(12))
    train(11)
train(12)
print(measure(lambda: torch.empty(9, dtype=torch.uint8)).peak_bytes)
"""


def test_a_profile_of_the_callers_is_left_alone() -> None:
    """A first call in it is refused with advice, also while it warms up: the profile was lost, or a crash.
    Known calls are profiled, and what was refused works afterwards.
    """
    done = subprocess.run([sys.executable, "-c", PROFILES], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "True", "True", "9"]


@pytest.mark.skipif(torch.__version__ < "2.8", reason="this torch does not say which hooks are set")
def test_a_first_call_in_a_backward_pass_that_is_measured_is_refused() -> None:
    """Autograd put back the profiler that the probe had paused, and nothing in the process was measured after
    that
    """
    cell, x = nn.GRUCell(6, 6), torch.randn(9, 3, 6, requires_grad=True)
    budgets = iter(("300KiB", "301KiB"))

    def loss(x: torch.Tensor) -> torch.Tensor:
        step = lambda h, x: (cell(x, h), h.sum())  # noqa: E731
        return unroll(step, torch.zeros(3, 6), x, module=cell, reduce="sum", budget=next(budgets))[0]

    def iteration() -> None:
        checkpoint(loss, x, use_reentrant=False).backward()

    with pytest.raises(ProfilerBusy, match="in a backward pass"):
        measure(iteration)
    assert measure(lambda: torch.empty(300, dtype=torch.uint8)).peak_bytes == 300
