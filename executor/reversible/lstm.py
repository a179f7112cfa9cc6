"""RevLSTM and NF-RevLSTM (MacKay et al. 2018, arXiv:1810.10999, sections 3.2 and 4).

    i, o, f, p = sigmoid(W [x; other])     g = tanh(V [x; other])
    c' = f * c + i * g                     h' = p * h + o * tanh(c')
    NF-RevLSTM, which never forgets and has neither f nor p:
    c' = c + i * g                         h' = h + o * tanh(c')

Both forget gates, f of c and p of h, are rounded to 10 bits. Gradients pass through the roundings as if they
were not there (straight through).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from executor.reversible.cell import HalfGradient, HalfTape, Parts
from executor.reversible.fixed_point import FACTOR_ONE
from executor.reversible.forgetting import Forgetting
from executor.reversible.register import Register

sigmoid_backward = torch.ops.aten.sigmoid_backward
tanh_backward = torch.ops.aten.tanh_backward


class LstmGates(NamedTuple):
    """Gates of half a RevLSTM step."""

    sigmoids: Tensor
    """i, o, and before they are limited f and p, [B, 4m]; i and o in the cell that never forgets."""
    candidate: Tensor
    """g, [B, m]."""
    factors: Tensor | None
    """f and p, limited, times 2**10 and rounded, [B, 2m]; None in the cell that never forgets."""


@dataclass(frozen=True)
class LstmCell:
    """Half a RevLSTM; without `forgetting` it is half an NF-RevLSTM. Registers: c, h."""

    forgetting: Forgetting | None
    register_count = 2

    @property
    def gate_count(self) -> int:
        """See Cell."""
        return 5 if self.forgetting else 3

    @property
    def forget_bits(self) -> int | None:
        """See Cell."""
        return self.forgetting.forget_bits if self.forgetting else None

    def gates(self, pre: Tensor, other: Tensor, weight: Tensor) -> LstmGates:
        """See Cell; the rows of `weight` are those of i, o, f, p and g."""
        units = other.shape[1]
        all_gates = torch.addmm(pre, other, weight.t())
        sigmoids = all_gates[:, :-units].sigmoid_()
        candidate = all_gates[:, -units:].tanh_()
        factors = self.forgetting.factor(sigmoids[:, 2 * units :]) if self.forgetting else None
        return LstmGates(sigmoids, candidate, factors)

    def advance(self, gates: LstmGates, registers: Sequence[Register]) -> None:
        """See Cell."""
        cell, hidden = registers
        cell_factor, hidden_factor = _factors(gates)
        admit, show = _admit_and_show(gates)
        cell.advance(admit * gates.candidate, cell_factor)
        hidden.advance(show * torch.tanh(cell.value), hidden_factor)

    def reverse(self, gates: LstmGates, registers: Sequence[Register]) -> None:
        """See Cell."""
        cell, hidden = registers
        cell_factor, hidden_factor = _factors(gates)
        admit, show = _admit_and_show(gates)
        hidden.reverse(show * torch.tanh(cell.value), hidden_factor)
        cell.reverse(admit * gates.candidate, cell_factor)

    def backward(self, tape: HalfTape, grads: Parts, weight: Tensor, grad_pre: Tensor) -> HalfGradient:
        """See Cell."""
        gates, (grad_cell, grad_hidden) = tape.gates, grads
        units = tape.other.shape[1]
        admit, show = _admit_and_show(gates)
        squashed = torch.tanh(tape.after[0])
        grad_cell = grad_cell + tanh_backward(grad_hidden * show, squashed)
        before, forget_grads = self._through_forgetting(tape, grad_cell, grad_hidden)
        grad_gates = [grad_cell * gates.candidate, grad_hidden * squashed, *forget_grads]
        grad_pre[:, :-units] = sigmoid_backward(torch.cat(grad_gates, dim=1), gates.sigmoids)
        grad_pre[:, -units:] = tanh_backward(grad_cell * admit, gates.candidate)
        return HalfGradient(before, grad_pre @ weight)

    def _through_forgetting(
        self, tape: HalfTape, grad_cell: Tensor, grad_hidden: Tensor
    ) -> tuple[Parts, list[Tensor]]:
        """Gradients of c and h, and of the gates f and p."""
        if self.forgetting is None:
            return (grad_cell, grad_hidden), []
        kept_cell, kept_hidden = (tape.gates.factors * (1 / FACTOR_ONE)).chunk(2, dim=1)
        slope, (cell, hidden) = self.forgetting.slope, tape.before
        grads = [grad_cell * cell * slope, grad_hidden * hidden * slope]
        return (grad_cell * kept_cell, grad_hidden * kept_hidden), grads

    def add_weight_gradient(self, tapes: Sequence[HalfTape], grad_pre: Tensor, total: Tensor) -> None:
        """See Cell."""
        total.add_(grad_pre.t() @ torch.cat([tape.other for tape in tapes]))


def _admit_and_show(gates: LstmGates) -> tuple[Tensor, Tensor]:
    units = gates.candidate.shape[1]
    return gates.sigmoids[:, :units], gates.sigmoids[:, units : 2 * units]


def _factors(gates: LstmGates) -> tuple[Tensor | None, Tensor | None]:
    if gates.factors is None:
        return None, None
    cell_factor, hidden_factor = gates.factors.chunk(2, dim=1)
    return cell_factor, hidden_factor
