"""Weight gradients from some of the rows (a step and a sequence each) of a segment's gate gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from executor.sparse.cell import Reversal


def gathered_weight_products(
    reversal: Reversal, rows: Tensor, scales: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Gradients of W and U from `rows`, indices into the k * B rows, each times its scale [n]."""
    tape, gradient = reversal.tape, _taken(reversal.gate_gradient, rows)
    x, h = (_scaled(_taken(inputs, rows), scales) for inputs in (tape.x, tape.hidden))
    weight_ih = torch.mm(gradient.t(), x)
    if reversal.hidden_gradient is not reversal.gate_gradient:
        gradient = _taken(reversal.hidden_gradient, rows)
    return weight_ih, torch.mm(gradient.t(), h)


def _taken(sequence: Tensor, rows: Tensor) -> Tensor:
    """Rows of [k, B, …] or of [k + 1, B, …]: of the latter row r is that before the step of row r."""
    return sequence.flatten(0, 1).index_select(0, rows)


def _scaled(inputs: Tensor, scales: Tensor | None) -> Tensor:
    return inputs if scales is None else inputs.mul_(scales[:, None])
