"""RevGRU and NF-RevGRU (MacKay et al. 2018, arXiv:1810.10999, sections 3.1 and 4).

    z, r = sigmoid(W [x; other])     g = tanh(V [x; r * other])     h' = z * h + (1 - z) * g
    NF-RevGRU, which never forgets:                                 h' = h + (1 - z) * g

The forget gate is rounded to 10 bits and both products use the rounded one, so that h stays within [-1, 1].
Gradients pass through the roundings as if they were not there (straight through).
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


class GruGates(NamedTuple):
    """Gates of half a RevGRU step, [B, m] each."""

    keep: Tensor
    """z before it is limited."""
    reset: Tensor
    gated: Tensor
    """reset * other."""
    candidate: Tensor
    factor: Tensor | None
    """The limited z times 2**10, rounded; None in the cell that never forgets."""
    new: Tensor
    """The share of the candidate: 1 - z."""


@dataclass(frozen=True)
class GruCell:
    """Half a RevGRU; without `forgetting` it is half an NF-RevGRU."""

    forgetting: Forgetting | None
    register_count = 1
    gate_count = 3

    @property
    def forget_bits(self) -> int | None:
        """See Cell."""
        return self.forgetting.forget_bits if self.forgetting else None

    def gates(self, pre: Tensor, other: Tensor, weight: Tensor) -> GruGates:
        """See Cell; the rows of `weight` are those of z, r and g."""
        split = 2 * other.shape[1]
        both = torch.addmm(pre[:, :split], other, weight[:split].t()).sigmoid_()
        keep, reset = both.chunk(2, dim=1)
        gated = reset * other
        candidate = torch.addmm(pre[:, split:], gated, weight[split:].t()).tanh_()
        factor = self.forgetting.factor(keep) if self.forgetting else None
        new = 1 - keep if factor is None else 1 - factor * (1 / FACTOR_ONE)
        return GruGates(keep, reset, gated, candidate, factor, new)

    def advance(self, gates: GruGates, registers: Sequence[Register]) -> None:
        """See Cell."""
        registers[0].advance(gates.new * gates.candidate, gates.factor)

    def reverse(self, gates: GruGates, registers: Sequence[Register]) -> None:
        """See Cell."""
        registers[0].reverse(gates.new * gates.candidate, gates.factor)

    def backward(self, tape: HalfTape, grads: Parts, weight: Tensor, grad_pre: Tensor) -> HalfGradient:
        """See Cell."""
        gates, other, (grad,) = tape.gates, tape.other, grads
        units = other.shape[1]
        before, grad_keep = self._through_update(tape, grad)
        grad_candidate = tanh_backward(grad * gates.new, gates.candidate)
        grad_gated = grad_candidate @ weight[2 * units :]
        grad_pre[:, :units] = sigmoid_backward(grad_keep, gates.keep)
        grad_pre[:, units : 2 * units] = sigmoid_backward(grad_gated * other, gates.reset)
        grad_pre[:, 2 * units :] = grad_candidate
        grad_other = torch.addmm(grad_gated * gates.reset, grad_pre[:, : 2 * units], weight[: 2 * units])
        return HalfGradient((before,), grad_other)

    def _through_update(self, tape: HalfTape, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of h and of z through h' = z * h + (1 - z) * g, or h + (1 - z) * g."""
        gates = tape.gates
        if self.forgetting is None:
            return grad, -(grad * gates.candidate)
        grad_kept = grad * (tape.before[0] - gates.candidate)
        return grad * (1 - gates.new), grad_kept * self.forgetting.slope

    def add_weight_gradient(self, tapes: Sequence[HalfTape], grad_pre: Tensor, total: Tensor) -> None:
        """See Cell."""
        split = 2 * tapes[0].other.shape[1]
        total[:split].add_(grad_pre[:, :split].t() @ torch.cat([tape.other for tape in tapes]))
        total[split:].add_(grad_pre[:, split:].t() @ torch.cat([tape.gates.gated for tape in tapes]))
