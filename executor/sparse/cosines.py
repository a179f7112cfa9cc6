"""How far a sparse weight gradient points away from the dense one, gate by gate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PIECE = 2**12
"""Numbers that are copied to float64 at a time: copies of whole gradients would not fit the budget."""
_BYTES = 8
_SPARE_ROWS = 4
"""Sums, and sums of these, while they are made into cosines."""


@dataclass(frozen=True)
class GradientCosines:
    """Cosines between sparse and dense gradients of the same weights at the same iteration; NaN where one of
    these is no number.
    """

    iteration: int
    gates: Mapping[str, float]
    """Of each gate's rows of all weights and biases."""
    whole: float
    """Of all of them as one vector."""

    def record(self) -> dict[str, object]:
        """Plain values, for a report; None for NaN, which JSON has no word for."""
        gates = {name: _or_none(cosine) for name, cosine in self.gates.items()}
        return {"iteration": self.iteration, "gates": gates, "whole": _or_none(self.whole)}


def least_cosine(found: Sequence[GradientCosines]) -> float | None:
    """The least of whole gradients; None where there is none, or one that is NaN and may have been any."""
    wholes = [each.whole for each in found]
    return None if any(map(math.isnan, wholes)) else min(wholes, default=None)


def _or_none(cosine: float) -> float | None:
    return None if math.isnan(cosine) else cosine


def gradient_cosines(
    sparse: Sequence[Tensor], dense: Sequence[Tensor], gate_names: Sequence[str], *, iteration: int
) -> GradientCosines:
    """Of gradients laid out as torch's weights [G*H, …] and biases [G*H]; 0 where one of them is zero. Takes
    `workspace_bytes` besides.
    """
    gates = len(gate_names)
    products = torch.zeros(gates, 3, dtype=torch.float64, device=sparse[0].device)
    for one, other in zip(sparse, dense, strict=True):
        rows = zip(products, one.reshape(gates, -1), other.reshape(gates, -1), strict=True)
        for total, first, second in rows:
            _add_products(total, first, second)
    products = products.cpu()
    found = _cosine(*products.t()).tolist()
    whole = float(_cosine(*products.sum(0)))
    return GradientCosines(iteration, dict(zip(gate_names, found, strict=True)), whole)


def workspace_bytes(gradients: Sequence[Tensor], *, gates: int) -> int:
    """The most that `gradient_cosines` takes: two pieces of float64, and the sums."""
    longest = max((gradient.numel() // gates for gradient in gradients), default=0)
    pieces = 2 * _BYTES * min(PIECE, longest)
    return pieces + _BYTES * 3 * (gates + _SPARE_ROWS)


def _add_products(total: Tensor, one: Tensor, other: Tensor) -> None:
    """Add to `total` [3] the products of both [n], of `one` with itself, and of `other` with itself."""
    for start in range(0, len(one), PIECE):
        _add_products_of_a_piece(total, one[start : start + PIECE], other[start : start + PIECE])


def _add_products_of_a_piece(total: Tensor, one: Tensor, other: Tensor) -> None:
    first, second = one.double(), other.double()
    total[0] += first.dot(second)
    total[1] += first.dot(first)
    total[2] += second.dot(second)


def _cosine(product: Tensor, first: Tensor, second: Tensor) -> Tensor:
    norms = (first * second).sqrt()
    return torch.where(norms > 0, product / norms.clamp_min(torch.finfo(norms.dtype).tiny), norms)
