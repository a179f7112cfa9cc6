"""What is left of a gate gradient of which whole rows or columns were dropped, found cheaply."""

from __future__ import annotations

import torch
from torch import Tensor


def largest_entries(gradient: Tensor) -> Tensor:
    """The largest |entry| along the last dimension: 0 where nothing is left, NaN where an entry is NaN."""
    return torch.maximum(gradient.amax(-1), gradient.amin(-1).neg_())


def showing(weight_gradients: tuple[Tensor, Tensor], largest: Tensor) -> tuple[Tensor, Tensor]:
    """Weight gradients whose first rows are NaN unless all of the `largest_entries` are finite.

    Products that leave out what is dropped never meet an entry that is infinite or no number, and whoever
    looks for an overflow, a GradScaler say, has to find it.
    """
    nothing = largest.amax() * 0
    for gradient in weight_gradients:
        gradient[0].add_(nothing)
    return weight_gradients
