"""Iterations of reversible layers against the same cell under full BPTT in floats, and one update alone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from statistics import median
from unittest import mock

import torch

from benchmarks.executor.__main__ import Iteration, interleaved, median_ratio
from benchmarks.gpu.peaks import measured
from benchmarks.gpu.rows import Found, Row
from benchmarks.reversible.floats import SquareSum, full_bptt_loss
from executor.reversible import Reversible, RevGRU, RevLSTM
from executor.reversible.choice import kernels_for
from executor.reversible.kernels import Kernels, TorchKernels
from executor.reversible.trajectory import Coding

ROUNDS = 5
FORGET_BITS = 3
UPDATES = 100
STEPS = 30


def rows() -> Iterator[Row]:
    """An update at the size of half a layer, then whole iterations."""
    for units in (64 * 128, 64 * 512, 64 * 2048):
        yield Row(f"one update of {units:,} units", 15.0, partial(update, units, device="cuda"))
    for kind in (RevGRU, RevLSTM):
        for coding in ("scheduled", "entropy"):
            for hidden in (256, 1024):
                name = f"{kind.__name__} {coding} H{hidden} B64 T{STEPS}"
                sizes = {"hidden": hidden, "batch": 64, "steps": STEPS}
                yield Row(name, 20.0, partial(iteration, kind, coding, device="cuda", **sizes))


def update(units: int, found: Found, *, device: str) -> None:
    """Seconds of a forward and a backward update by the torch kernels, and by those that modules use."""
    best = kernels_for(torch.device(device), torch.float32)
    variants = {
        "seconds": partial(_updates, best, units, device),
        "torch_seconds": partial(_updates, TorchKernels(), units, device),
    }
    for variant in variants.values():
        variant()
    times = interleaved(variants, ROUNDS)
    found["kernels"] = type(best).__name__
    found |= {name: median(rounds) / UPDATES for name, rounds in times.items()}


def _updates(kernels: Kernels, units: int, device: str) -> None:
    fixed, buffer = torch.zeros(2, units, dtype=torch.float64, device=device).unbind(0)
    factor, addend, value = torch.full((3, units), 700.0, device=device).unbind(0)
    for _ in range(UPDATES):
        kernels.advance(fixed, buffer, factor, addend, value)
        kernels.reverse(fixed, buffer, factor, addend, value)


def iteration(
    kind: type[Reversible],
    coding: Coding,
    found: Found,
    *,
    hidden: int,
    batch: int,
    steps: int,
    device: str,
) -> None:
    """Time and peak of a forward and backward pass: reversed, reversed with torch kernels, and full BPTT."""
    torch.manual_seed(0)
    module = kind(hidden, hidden, forget_bits=FORGET_BITS, coding=coding, device=device)
    x, targets = torch.randn(2, steps, batch, hidden, device=device).unbind(0)

    def reversed_() -> None:
        module.reduce(x, targets, SquareSum())[0].backward()

    def with_torch_kernels() -> None:
        with mock.patch("executor.reversible.trajectory.kernels_for", return_value=TorchKernels()):
            reversed_()

    def full() -> None:
        full_bptt_loss(module, x, targets).backward()

    variants: dict[str, Iteration] = {"ours": reversed_, "torch": with_torch_kernels, "full": full}
    for variant in variants.values():
        variant()
    found["peak_bytes"], found["full_peak_bytes"] = (
        measured(module, variants[name]).peak_bytes for name in ("ours", "full")
    )
    found["archived_bytes"] = module.archived_bytes
    times = interleaved(variants, ROUNDS)
    found["seconds"] = median(times["ours"])
    found["torch_kernels_ratio"] = median_ratio(times["torch"], times["full"])
    found["time_ratio"] = median_ratio(times["ours"], times["full"])
