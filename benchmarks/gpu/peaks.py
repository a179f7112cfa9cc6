"""Peaks on a device: with the gradients that the iteration itself makes, and no older ones."""

from __future__ import annotations

from torch import nn

from benchmarks.executor.cases import Iteration
from executor import measure
from executor.measure import Measurement


def measured(module: nn.Module, iteration: Iteration) -> Measurement[None]:
    """The iteration's peak, parameter gradients included: older ones, which it drops, would hide as many
    bytes of its own from CUDA's counters.
    """
    module.zero_grad(set_to_none=True)
    return measure(iteration)
