"""What a pass through reversible layers does besides the cells: segments, dropout, random numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from executor.reversible.cell import Cell
from executor.reversible.trajectory import Coding


@dataclass(frozen=True)
class Recipe:
    """All that is constant over a pass; the same recipe takes a trajectory forward and back."""

    cell: Cell
    num_layers: int
    coding: Coding
    segment_steps: int
    """Steps whose input products are computed at once, and whose tape exists at once on the way back."""
    dropout: float
    """Probability of dropping a layer's output on its way to the next layer; 0 outside training."""
    seed: int | None
    """Each segment's random numbers start from `seed` plus its first step, in both directions.

    None: nothing random happens.
    """

    def segments(self, length: int) -> list[slice]:
        """The segments of `length` steps in order; the last one may be shorter."""
        starts = range(0, length, self.segment_steps)
        return [slice(start, min(start + self.segment_steps, length)) for start in starts]

    @contextlib.contextmanager
    def replayed(self, segment: slice, device: torch.device) -> Iterator[None]:
        """Random numbers drawn inside are those of this segment; outside nothing changes."""
        if self.seed is None:
            yield
            return
        generators = _generators(device)
        states = [generator.get_state() for generator in generators]
        try:
            for generator in generators:
                generator.manual_seed(self.seed + segment.start)
            yield
        finally:
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)

    def masks(self, weight: Tensor, *, steps: int, batch_size: int) -> list[Tensor]:
        """Dropout masks [k, B, 2m] for the inputs of layers 2 and up, scaled; none without dropout.

        `weight` is a layer's weight_hh [2*g*m, m].
        """
        if not self.dropout:
            return []
        keep, shape = 1 - self.dropout, (steps, batch_size, 2 * weight.shape[1])
        return [weight.new_empty(shape).bernoulli_(keep).div_(keep) for _ in range(self.num_layers - 1)]


def _generators(device: torch.device) -> list[torch.Generator]:
    """Where modules on `device` draw from. torch.manual_seed would also format a stack trace for CUDA."""
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index])
    return generators
