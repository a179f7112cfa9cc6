"""A scale-free rule: drop what is small next to the root mean square of its step's gate gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from executor.sparse.errors import require_threshold
from executor.sparse.rule import EntryRule


@dataclass(frozen=True)
class Relative(EntryRule):
    """Keep entries with |entry| > threshold * RMS of the step's gate gradient [B, G*H].

    Scaling the loss changes nothing. Each step has its own RMS, so that it does not matter how a plan cuts
    the sequence into segments. Raises InvalidSparsity for a threshold that is negative or NaN.
    """

    threshold: float = 0.3

    def __post_init__(self) -> None:
        require_threshold("threshold", self.threshold)

    def drop(self, gradient: Tensor) -> None:
        """See EntryRule. Where the norm is not finite nothing is dropped: an overflow has to show."""
        # In float64: squares of float32 overflow above 1e19 and vanish below 1e-22, scaled losses or not.
        norm = torch.linalg.vector_norm(gradient, dtype=torch.float64)
        limit = norm * (self.threshold / math.sqrt(gradient.numel()))
        limit.masked_fill_(limit.isinf(), -1)
        gradient.masked_fill_(gradient.abs() <= limit, 0)
