"""Sparsified gate gradients in numbers: what of the backward products is left to run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SparsityRule = Literal["absolute", "rms", "top", "columns", "blocks", "rows", "mixed"]
ENTRY_RULES: frozenset[SparsityRule] = frozenset({"absolute", "rms", "top"})
"""They drop single entries: the kernels that run are dense, and no product becomes cheaper."""

_KEEP_RATIOS: dict[SparsityRule, float] = {"columns": 0.25, "blocks": 0.25, "rows": 0.5, "mixed": 0.125}
_ROW_RATIO = 0.5
_BLOCK_SIZE = 16
_SHARED_BY_COLUMNS, _SHARED_BY_ROWS = 25, 5


@dataclass(frozen=True, kw_only=True)
class GradientSparsity:
    """A rule of executor.sparse and its schedule. Ratios and thresholds that are None have their defaults."""

    rule: SparsityRule
    threshold: float | None = None
    keep_ratio: float | None = None
    row_ratio: float | None = None
    share_steps: int | None = None
    block_size: int | None = None
    warm_up_iterations: int = 0
    dense_every: int | None = None
    error_feedback: bool = False

    def __str__(self) -> str:
        """For people: what it does to the backward pass."""
        ran = f"{self.backward_ratio:.0%} of the backward products"
        why = ", which single zeros do not shrink" if self.rule in ENTRY_RULES else ""
        return f"gate gradients sparsified by {self.rule!r}: {ran} run{why}, and the gradient is inexact"

    @property
    def block_columns(self) -> int:
        """Columns of a gate gradient that are kept or dropped together: they must divide it."""
        return (self.block_size or _BLOCK_SIZE) if self.rule == "blocks" else 1

    @property
    def stretch_steps(self) -> int:
        """Steps that share their columns, or their rows."""
        return self.share_steps or (_SHARED_BY_ROWS if self.rule == "rows" else _SHARED_BY_COLUMNS)

    @property
    def flow_ratio(self) -> float:
        """MACs that run of the products through which the gradient flows on, in a sparse iteration."""
        if self.rule in ENTRY_RULES:
            return 1.0
        return self.keep_ratio or _KEEP_RATIOS[self.rule]

    @property
    def weights_ratio(self) -> float:
        """MACs that run of the products of the weight gradients, in a sparse iteration."""
        kept = (self.row_ratio or _ROW_RATIO) if self.rule == "mixed" else self.flow_ratio
        return kept + self.error_feedback

    @property
    def backward_ratio(self) -> float:
        """MACs that run of all backward products, over the iterations after the warm-up.

        Half of a layer's backward MACs are those of its weight gradients.
        """
        dense = 0.0 if self.dense_every is None else 1 / self.dense_every
        sparse = (self.flow_ratio + self.weights_ratio) / 2
        return dense + (1 - dense) * sparse
