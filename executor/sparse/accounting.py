"""What sparse training left out, counted: entries per gate, and multiply-accumulates (MACs) per product.

Three figures that must not be confused:

- redundant by the paper's formula: (4/6) x sparsity, since 4 of the 6 equal products of a step have a gate
  gradient as an operand (Zhu et al. 2017);
- redundant by count: MACs with a dropped operand, over all MACs that a dense iteration runs;
- saved: MACs that the kernels which ran did not do. Zeros in a dense kernel are redundant and not saved.

Forward products count once, however often a plan runs them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

PAPER_SHARE = 4 / 6
"""Products with a gate gradient among those of a step, per MAC: backward's four among six."""


@dataclass(frozen=True, kw_only=True)
class IterationRecord:
    """One iteration of one module, all its layers and directions together."""

    iteration: int
    gate_sparsity: Mapping[str, float]
    """Share of each gate's gradient that was dropped (or zero by itself), weighted by what it costs."""
    dense_backward_macs: int
    """MACs of the backward products of a dense iteration."""
    executed_backward_macs: int
    """MACs of the backward products that ran."""
    forward_macs: int

    @property
    def sparsity(self) -> float:
        """Mean over the gates, which are of equal size."""
        return sum(self.gate_sparsity.values()) / len(self.gate_sparsity)

    @property
    def redundant_ratio_by_formula(self) -> float:
        """(4/6) x sparsity."""
        return PAPER_SHARE * self.sparsity

    @property
    def redundant_ratio(self) -> float:
        """MACs with a dropped operand over all MACs of a dense iteration."""
        return self.sparsity * self.dense_backward_macs / (self.forward_macs + self.dense_backward_macs)

    @property
    def saved_ratio(self) -> float:
        """MACs that did not run over all MACs of a dense iteration."""
        saved = self.dense_backward_macs - self.executed_backward_macs
        return saved / (self.forward_macs + self.dense_backward_macs)

    def record(self) -> dict[str, Any]:
        """Plain values, for a report."""
        return {
            "iteration": self.iteration,
            "gate_sparsity": dict(self.gate_sparsity),
            "sparsity": self.sparsity,
            "redundant_ratio_by_formula": self.redundant_ratio_by_formula,
            "redundant_ratio": self.redundant_ratio,
            "saved_ratio": self.saved_ratio,
        }


class Tally:
    """Counts of the iteration that is running. Stays on the device: reading waits for it, adding does not."""

    def __init__(self, gate_names: Sequence[str]) -> None:
        self._gate_names = tuple(gate_names)
        self._dense_macs = 0
        self._executed_macs = 0
        self._forward_macs = 0
        self._useful_macs: Tensor | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no backward pass was counted."""
        return self._dense_macs == 0

    def add_forward(self, macs: int) -> None:
        """Count the forward products of a segment."""
        self._forward_macs += macs

    def add_executed(self, macs: int) -> None:
        """Count MACs that a dense iteration would not run, such as those of error feedback."""
        self._executed_macs += macs

    def add_product(self, *, dense_macs: int, executed_macs: int, kept_ratios: Tensor) -> None:
        """Count a backward product; `kept_ratios` [G] is the share of each gate's operand that is left."""
        self._dense_macs += dense_macs
        self._executed_macs += executed_macs
        useful = kept_ratios.to(torch.float64) * (dense_macs / len(self._gate_names))
        self._useful_macs = useful if self._useful_macs is None else self._useful_macs + useful

    def record(self, iteration: int) -> IterationRecord:
        """What was counted. Raises ValueError when nothing was."""
        if self._useful_macs is None:
            raise ValueError(f"iteration {iteration} had no backward pass: there is nothing to report")
        per_gate = self._dense_macs / len(self._gate_names)
        kept = (self._useful_macs / per_gate).tolist()
        return IterationRecord(
            iteration=iteration,
            gate_sparsity={name: 1 - ratio for name, ratio in zip(self._gate_names, kept, strict=True)},
            dense_backward_macs=self._dense_macs,
            executed_backward_macs=self._executed_macs,
            forward_macs=self._forward_macs,
        )
