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
    layer_sparsity: Mapping[str, float]
    """The same share of each layer and direction, all its gates together."""
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
            "layer_sparsity": dict(self.layer_sparsity),
            "sparsity": self.sparsity,
            "redundant_ratio_by_formula": self.redundant_ratio_by_formula,
            "redundant_ratio": self.redundant_ratio,
            "saved_ratio": self.saved_ratio,
        }


class Tally:
    """Counts of one layer in the iteration that is running. Stays on the device: reading waits for it, adding
    does not.
    """

    def __init__(self, gate_count: int) -> None:
        self._gate_count = gate_count
        self.dense_macs = 0
        self.executed_macs = 0
        self.forward_macs = 0
        self._useful_macs: Tensor | None = None
        self._had_entries: Tensor | None = None

    def add_forward(self, macs: int) -> None:
        """Count the forward products of a segment."""
        self.forward_macs += macs

    def add_executed(self, macs: int) -> None:
        """Count MACs that a dense iteration would not run, such as those of error feedback."""
        self.executed_macs += macs

    def add_product(self, *, dense_macs: int, executed_macs: int, kept_ratios: Tensor) -> None:
        """Count a backward product; `kept_ratios` [G] is the share of each gate's operand that is left."""
        self.dense_macs += dense_macs
        self.executed_macs += executed_macs
        useful = kept_ratios.to(torch.float64) * (dense_macs / self._gate_count)
        self._useful_macs = useful if self._useful_macs is None else self._useful_macs + useful

    def note_entries(self, gradient: Tensor) -> Tensor:
        """Note, and return, whether any entry of a gate gradient is not zero, before a rule drops from it."""
        found = gradient.any()
        self._had_entries = found if self._had_entries is None else self._had_entries | found
        return found

    def counts(self) -> Tensor:
        """MACs of backward products with what is left, per gate; and whether there was anything: [G + 1]."""
        useful = self._useful_macs
        if useful is None:
            useful = torch.zeros(self._gate_count, device="cpu")
        had_entries = useful.new_zeros(()) if self._had_entries is None else self._had_entries.to(useful)
        return torch.cat([useful, had_entries[None]])


class Books:
    """The tallies of all layers of one module in the iteration that is running."""

    def __init__(self, gate_names: Sequence[str]) -> None:
        self._gate_names = tuple(gate_names)
        self._tallies: dict[str, Tally] = {}

    @property
    def is_empty(self) -> bool:
        """Whether no backward pass was counted."""
        return not any(tally.dense_macs for tally in self._tallies.values())

    def tally(self, layer: str) -> Tally:
        """That of `layer`."""
        return self._tallies.setdefault(layer, Tally(len(self._gate_names)))

    def close(self, iteration: int) -> tuple[IterationRecord, tuple[str, ...]]:
        """What was counted, and the layers of whose gate gradients a rule left nothing, though they were not
        zero by themselves. Raises ValueError when there was no backward pass.
        """
        if self.is_empty:
            raise ValueError(f"iteration {iteration} had no backward pass: there is nothing to report")
        counts = torch.stack([tally.counts() for tally in self._tallies.values()]).tolist()
        useful = {name: found[:-1] for name, found in zip(self._tallies, counts, strict=True)}
        record = self._record(iteration, useful)
        silenced = [name for name, found in zip(self._tallies, counts, strict=True) if found[-1]]
        return record, tuple(name for name in silenced if not any(useful[name]))

    def _record(self, iteration: int, useful: Mapping[str, Sequence[float]]) -> IterationRecord:
        tallies = self._tallies.values()
        dense_macs = sum(tally.dense_macs for tally in tallies)
        of_gates = map(sum, zip(*useful.values(), strict=True))
        gates = zip(self._gate_names, of_gates, strict=True)
        return IterationRecord(
            iteration=iteration,
            gate_sparsity={gate: 1 - macs / (dense_macs / len(self._gate_names)) for gate, macs in gates},
            layer_sparsity={
                name: 1 - sum(useful[name]) / tally.dense_macs for name, tally in self._tallies.items()
            },
            dense_backward_macs=dense_macs,
            executed_backward_macs=sum(tally.executed_macs for tally in tallies),
            forward_macs=sum(tally.forward_macs for tally in tallies),
        )
