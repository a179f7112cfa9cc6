"""The exact peak of tensor memory that a function adds: every CPU allocation, or CUDA's own peak."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Generic, NamedTuple, TypeVar

import torch

from executor.memory.cuda_memory import Peaks, counted, indexed
from executor.memory.trace import record
from executor.offload.slots import recorded_peaks
from executor.reversal import recorded_archives

Result = TypeVar("Result")


class Measurement(NamedTuple, Generic[Result]):
    """What a function added at its peak, and what it returned."""

    peak_bytes: int
    result: Result
    tier_peak_bytes: Mapping[str, int] = {}
    """The same for states that were moved to other tiers, by tier: `host`, `disk`. Pinned host memory counts
    in the powers of two that torch hands out."""
    archived_bytes: int | None = None
    """The most that reversible layers' archives held of lost bits, exactly; None where none archived. On the
    device, and part of the peak."""
    requested_peak_bytes: int | None = None
    """On CUDA, what the tensors asked for at their peak: less than the blocks that were handed out, and the
    same whatever was allocated before. None on the CPU, whose blocks are what was asked for."""


class TimelinePoint(NamedTuple):
    """Live bytes from this moment on, of those that the function allocated."""

    seconds: float
    """Since the function began; under the profiler, so stretched."""
    live_bytes: int


class Timeline(NamedTuple, Generic[Result]):
    """The memory of one run over time."""

    peak_bytes: int
    result: Result
    points: tuple[TimelinePoint, ...]


def measure(
    function: Callable[[], Result], *, device: torch.device | str | None = None
) -> Measurement[Result]:
    """Run `function()`; return the peak bytes of tensors that it added, and its result.

    On the CPU every allocation is counted, to the byte. On CUDA it is the caching allocator's peak of
    allocated bytes, blocks rounded up as it hands them out (`executor.memory.cuda_memory`). What is probed
    and planned meanwhile does not count. `device` defaults to CUDA where there is one; a warning says so
    where a function added nothing there: it may have worked on the CPU.
    """
    chosen = default_device() if device is None else indexed(device)
    with recorded_peaks() as tier_peak_bytes, recorded_archives() as archived:
        peaks, result = _measured(function, chosen)
    if device is None and chosen.type == "cuda" and not peaks.handed_out_bytes:
        warnings.warn(
            f"nothing was added on {chosen}, which is measured where there is CUDA: for what works on the "
            "CPU give device='cpu'",
            stacklevel=2,
        )
    requested = peaks.requested_bytes if chosen.type == "cuda" else None
    return Measurement(peaks.handed_out_bytes, result, tier_peak_bytes, archived.bytes, requested)


def measure_timeline(function: Callable[[], Result]) -> Timeline[Result]:
    """Like `measure` on the CPU, with live bytes after every allocation and release."""
    recording, result = record(function)
    samples = list(recording.samples())
    start = samples[0].time_ns if samples else 0
    points = tuple(TimelinePoint((s.time_ns - start) * 1e-9, s.live_bytes) for s in samples if s.mark is None)
    return Timeline(max((point.live_bytes for point in points), default=0), result, points)


def default_device() -> torch.device:
    """CUDA's current device where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def _measured(function: Callable[[], Result], device: torch.device) -> tuple[Peaks, Result]:
    if device.type == "cuda":
        with counted(device) as counter:
            result = function()
        return counter.added, result
    recording, result = record(function)
    peak_bytes = max((sample.live_bytes for sample in recording.samples()), default=0)
    return Peaks(max(peak_bytes, 0), max(peak_bytes, 0)), result
