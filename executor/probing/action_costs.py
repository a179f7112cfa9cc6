"""Bytes and seconds of each action of a run, as it happens: what the probe reads.

On the CPU the profiler's memory events are cut at marks between the actions; on CUDA the allocator's
counters are read there, each block counted at the most that it can be. Seconds come from a run of their own,
since a recording slows everything down.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch

from executor.engine import Observer
from executor.memory.cuda_memory import hidden, most_held, nothing_else_released
from executor.memory.trace import Recording, mark, record
from planner_service.chain import TieredAction


@dataclass(frozen=True)
class ActionBytes:
    """Live bytes before, at most during, and after one action; None: between the passes."""

    action: TieredAction | None
    before_bytes: int
    peak_bytes: int
    after_bytes: int


class RunBytes(NamedTuple):
    """The bytes of a run."""

    pieces: list[ActionBytes]
    """Its actions, in order."""
    peak_bytes: int
    """Of the whole."""
    left_bytes: int
    """What it allocated, and is live at its end; on CUDA less what it freed that was there before."""


def bytes_of_actions(run: Callable[[Observer], object], device: torch.device) -> RunBytes:
    """Call `run(observer)`; return the bytes of its actions, and of the whole."""
    if device.type == "cuda":
        return _on_cuda(run, device)
    actions: list[TieredAction | None] = []

    def observe(action: TieredAction | None) -> None:
        mark(str(len(actions)))
        actions.append(action)

    recording, _ = record(lambda: run(observe))
    return _cut_at_marks(recording, actions)


def _cut_at_marks(recording: Recording, actions: list[TieredAction | None]) -> RunBytes:
    pieces: list[ActionBytes] = []
    before = peak = live = overall = 0
    current = -1
    for sample in recording.samples():
        if sample.mark is not None:
            if current >= 0:
                pieces.append(ActionBytes(actions[current], before, peak, live))
            current, before, peak = int(sample.mark), live, live
        live = sample.live_bytes
        peak = max(peak, live)
        overall = max(overall, live)
    return RunBytes(pieces, overall, live)


def _on_cuda(run: Callable[[Observer], object], device: torch.device) -> RunBytes:
    pieces: list[ActionBytes] = []
    started: list[tuple[TieredAction | None, int]] = []

    def observe(action: TieredAction | None) -> None:
        held = most_held(device)
        live = held.now_bytes - base
        if started:
            previous, before = started.pop()
            pieces.append(ActionBytes(previous, before, held.peak_bytes - base, live))
        torch.cuda.reset_peak_memory_stats(device)
        started.append((action, live))

    with hidden(), nothing_else_released():
        torch.cuda.synchronize(device)
        base = most_held(device).now_bytes
        run(observe)
        left_bytes = most_held(device).now_bytes - base
    return RunBytes(pieces, max(piece.peak_bytes for piece in pieces), left_bytes)


def seconds_of_actions(
    run: Callable[[Observer], object], device: torch.device
) -> list[tuple[TieredAction | None, float]]:
    """Call `run(observer)`; return the seconds of its actions in order.

    With one thread on the CPU they are seconds of this thread, which other processes do not disturb.
    """
    times: list[tuple[TieredAction | None, float]] = []
    is_alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.thread_time if is_alone else time.perf_counter

    def observe(action: TieredAction | None) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append((action, clock()))

    run(observe)
    return [(action, end - begin) for (action, begin), (_, end) in pairwise(times)]
