"""Processor time of an iteration: reversible against the same cell under full BPTT in floats."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import torch

from benchmarks.reversible.floats import SquareSum, full_bptt_loss
from executor.reversible import RevGRU, RevLSTM

ROUNDS = 9
SIZES = ((16, 128, 100), (16, 256, 100), (64, 256, 50), (32, 512, 40))
"""Batch, hidden (and input) size, steps."""


def rows() -> Iterator[dict[str, Any]]:
    """Every cell at every size with its default arguments, n = 3."""
    for kind in (RevGRU, RevLSTM):
        for batch_size, hidden_size, steps in SIZES:
            torch.manual_seed(0)
            module = kind(hidden_size, hidden_size, forget_bits=3)
            x, targets = torch.randn(2, steps, batch_size, hidden_size).unbind(0)
            ratios = interleaved_ratios(
                lambda m=module, x=x, t=targets: m.reduce(x, t, SquareSum())[0].backward(),
                lambda m=module, x=x, t=targets: full_bptt_loss(m, x, t).backward(),
            )
            yield {
                "cell": kind.__name__,
                "batch_size": batch_size,
                "hidden_size": hidden_size,
                "steps": steps,
                "time_ratio": median(ratios),
                "ratios": sorted(ratios),
            }


def interleaved_ratios(ours: Callable[[], None], theirs: Callable[[], None]) -> list[float]:
    """Processor time of `ours` over that of `theirs`, round by round, after a warm-up."""
    ours()
    theirs()
    return [_seconds(ours) / _seconds(theirs) for _ in range(ROUNDS)]


def _seconds(function: Callable[[], None]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start
