"""Keep a fixed share of the entries of each step's gate gradient: the largest."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from executor.sparse.errors import require_share
from executor.sparse.rule import EntryRule


@dataclass(frozen=True)
class TopEntries(EntryRule):
    """Keep the `keep_ratio` largest entries of the step's [B, G*H]; at least one.

    Sparsity is then known beforehand, and the threshold is not: finding it costs a partial sort per step.
    Raises InvalidSparsity for a ratio outside (0, 1].
    """

    keep_ratio: float = 0.2

    def __post_init__(self) -> None:
        require_share("keep_ratio", self.keep_ratio)

    def drop(self, gradient: Tensor) -> None:
        """See EntryRule. Entries equal to the smallest one kept are kept too."""
        dropped = gradient.numel() - max(1, round(gradient.numel() * self.keep_ratio))
        if dropped:
            sizes = gradient.abs()
            smallest_kept = sizes.flatten().kthvalue(dropped + 1).values
            gradient.masked_fill_(sizes < smallest_kept, 0)
