"""How far a sparse weight gradient points away from the dense one, gate by gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GradientCosines:
    """Cosines between sparse and dense gradients of the same weights at the same iteration."""

    iteration: int
    gates: Mapping[str, float]
    """Of each gate's rows of all weights and biases."""
    whole: float
    """Of all of them as one vector."""

    def record(self) -> dict[str, object]:
        """Plain values, for a report."""
        return {"iteration": self.iteration, "gates": dict(self.gates), "whole": self.whole}


def gradient_cosines(
    sparse: Sequence[Tensor], dense: Sequence[Tensor], gate_names: Sequence[str], *, iteration: int
) -> GradientCosines:
    """Of gradients laid out as torch's weights [G*H, …] and biases [G*H]; 0 where one of them is zero."""
    products = torch.zeros(3, len(gate_names), dtype=torch.float64, device="cpu")
    for one, other in zip(sparse, dense, strict=True):
        rows = (part.reshape(len(gate_names), -1).double().cpu() for part in (one, other))
        first, second = rows
        products[0] += (first * second).sum(1)
        products[1] += first.square().sum(1)
        products[2] += second.square().sum(1)
    gates = _cosine(*products).tolist()
    whole = float(_cosine(*products.sum(1)))
    return GradientCosines(iteration, dict(zip(gate_names, gates, strict=True)), whole)


def _cosine(product: Tensor, first: Tensor, second: Tensor) -> Tensor:
    norms = (first * second).sqrt()
    return torch.where(norms > 0, product / norms.clamp_min(torch.finfo(norms.dtype).tiny), norms)
