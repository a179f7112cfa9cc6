"""A reversible model in numbers, as executor.reversible lays it out: parameters, state, bits lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from planner_service.memory.model import ParameterGroup, RecurrentModel

Coding = Literal["entropy", "scheduled"]

REGISTER_BYTES = 8
"""One unit of the state in fixed point; its buffer takes as many."""
WORD_BYTES = 2
BLOCK_BYTES = 2**15
"""What the archive of a layer allocates at a time."""
FACTOR_BITS = 10
"""Fractional bits of a forget gate: what a unit forgets in a step where no limit is set."""
ENTROPY_LOSS_BITS = 1e-4
"""What the entropy coder adds, at most, per unit and step."""


@dataclass(frozen=True, kw_only=True)
class ReversibleModel(RecurrentModel):
    """Layers of one reversible cell, with an optional embedding below and an optional linear head above."""

    forget_bits: int | None
    """Most bits that a unit can forget in a step; None for no limit. Of no meaning for the nf cells."""
    coding: Coding

    @property
    def never_forgets(self) -> bool:
        """Whether the cell loses no bits."""
        return self.cell_kind in ("nf_rev_gru", "nf_rev_lstm")

    @property
    def lost_bits(self) -> float:
        """Bits that a unit loses in a step, at most, what the coder adds included."""
        if self.never_forgets:
            return 0.0
        bits = FACTOR_BITS if self.forget_bits is None else self.forget_bits
        return bits + ENTROPY_LOSS_BITS if self.coding == "entropy" else float(bits)

    def register_units(self, batch_size: int) -> int:
        """Units of the state in all layers: elements of h, and of c where there is one."""
        return self.num_layers * self.cell.state_units * batch_size * self.hidden_size

    def state_bytes(self, batch_size: int) -> int:
        """S: registers and buffers between two steps, in bytes."""
        parts = 1 if self.never_forgets else 2
        return parts * REGISTER_BYTES * self.register_units(batch_size)

    @property
    def backward_parameter_bytes(self) -> int:
        """Gradients of parameters that reversing a step holds beside the totals: those of embedding and head,
        which autograd computes, and the largest product of a layer, which is added before the next begins.
        """
        beside = [group for group in self.parameter_groups() if group.name in ("embedding", "head")]
        rows, half = self.cell.gate_count * self.hidden_size, self.hidden_size // 2
        widest = max(self.input_size, half, self.hidden_size if self.num_layers > 1 else 0)
        return (sum(group.element_count for group in beside) + rows * widest) * self.item_bytes

    def _layer_group(self) -> ParameterGroup:
        rows, half = self.cell.gate_count * self.hidden_size, self.hidden_size // 2
        count = rows * (self.input_size + half + 1)
        formula = f"{rows} x ({self.input_size} + {half} + 1)"
        if self.num_layers > 1:
            count += (self.num_layers - 1) * rows * (self.hidden_size + half + 1)
            formula += f" + {self.num_layers - 1} x {rows} x ({self.hidden_size} + {half} + 1)"
        return ParameterGroup(f"{self.cell_kind} layers", count, 3 * self.num_layers, formula)
