"""Seconds per advance, tape and backward of one iteration, as the engine goes through its schedule."""

from __future__ import annotations

import time
from collections import Counter, defaultdict

import torch

from planner_service.chain import Advance, Backward, Tape, TieredAction

_KINDS: dict[type, str] = {Advance: "advance", Tape: "tape", Backward: "backward"}


class ActionTimes:
    """An observer of the engine that adds up the seconds of each kind of action, per segment.

    On CUDA it waits for the device before every action: for one iteration, not for all.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._segments: Counter[str] = Counter()
        self._running: tuple[str, int] | None = None
        self._since = 0.0

    def __call__(self, action: TieredAction | None) -> None:
        """Before `action`; None where a pass begins or ends."""
        now = self._now()
        if self._running is not None:
            kind, count = self._running
            self._seconds[kind] += now - self._since
            self._segments[kind] += count
        self._running = _kind_and_count(action)
        self._since = now

    def record(self) -> dict[str, float | None]:
        """`seconds_per_advance`, `…_tape`, `…_backward`: means over segments; None for what never ran."""
        return {f"seconds_per_{kind}": self._mean(kind) for kind in _KINDS.values()}

    def _mean(self, kind: str) -> float | None:
        count = self._segments[kind]
        return self._seconds[kind] / count if count else None

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def _kind_and_count(action: TieredAction | None) -> tuple[str, int] | None:
    """What kind of work an action is, and of how many segments; None for a `free` or no action."""
    if not isinstance(action, Advance | Tape | Backward):
        return None
    return _KINDS[type(action)], abs(action.last - action.first) + 1
