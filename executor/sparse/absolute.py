"""The paper's rule: drop what is no larger than a fixed number (Zhu et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from executor.sparse.errors import require_threshold
from executor.sparse.rule import EntryRule


@dataclass(frozen=True)
class Absolute(EntryRule):
    """Keep entries with |entry| > threshold: the same for all gates, layers, steps and iterations.

    The threshold is in units of the loss's gradient: a loss that is a sum over batch and time instead of a
    mean needs one larger by their number. Raises InvalidSparsity for a threshold that is negative or NaN.
    """

    threshold: float

    def __post_init__(self) -> None:
        require_threshold("threshold", self.threshold)

    def drop(self, gradient: Tensor) -> None:
        """See EntryRule. NaN is never dropped: it has to show."""
        gradient.masked_fill_(gradient.abs() <= self.threshold, 0)
