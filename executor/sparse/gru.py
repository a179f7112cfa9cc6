"""GRU steps forward and their gate gradients backward, in the operations of torch.nn.GRUCell.

    r, z = sigmoid(net)   n = tanh(net_n + r v)   v = U_n h_{t-1} + b_n   h_t = (h_{t-1} - n) z + n

    dn = dh - dh z               dnet_n = dn (1 - n²)       dv = dnet_n r
    dnet_r = dnet_n v (1 - r) r  dnet_z = dh (h_{t-1} - n) (1 - z) z

The gate gradient is dnet_r, dnet_z, dnet_n in torch's order. The product with U takes dv in place of dnet_n;
an entry dropped from dnet_n is dropped from dv too.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from executor.sparse.cell import Cell, Reversal, State, Tape, input_side, room_after
from executor.sparse.repeated import hidden_side
from executor.torch_weights import TorchWeights

sigmoid_backward = torch.ops.aten.sigmoid_backward
tanh_backward = torch.ops.aten.tanh_backward


class GruCell(Cell):
    """The cell of torch.nn.GRU."""

    gate_names: ClassVar[tuple[str, ...]] = ("r", "z", "n")
    state_names: ClassVar[tuple[str, ...]] = ("h",)

    def advance(self, x: Tensor, state: State, weights: TorchWeights) -> tuple[Tape, State]:
        """See Cell; the tape keeps the gates [k, B, 3H] and v [k, B, H]."""
        gates = input_side(x, weights)
        hidden = room_after(state[0], len(x))
        recurrent = torch.empty_like(hidden[1:])
        units = hidden.shape[2]
        product = hidden_side(weights, rows=x.shape[1], steps=len(x))
        for step in range(len(x)):
            from_hidden = product(hidden[step])
            r_and_z, n = gates[step][:, : 2 * units], gates[step][:, 2 * units :]
            r, z = r_and_z.add_(from_hidden[:, : 2 * units]).chunk(2, dim=1)
            r.sigmoid_()  # one by one, as torch does it: see lstm.py
            z.sigmoid_()
            recurrent[step].copy_(from_hidden[:, 2 * units :])
            n.add_(recurrent[step] * r).tanh_()
            torch.sub(hidden[step], n, out=hidden[step + 1]).mul_(z).add_(n)
        return Tape(x, hidden, (gates, recurrent)), (hidden[-1],)

    def reversal(self, tape: Tape, grad_after: State) -> Reversal:
        """See Cell."""
        return _GruReversal(tape, grad_after, len(self.gate_names))


class _GruReversal(Reversal):
    def __init__(self, tape: Tape, grad_after: State, gate_count: int) -> None:
        super().__init__(tape, grad_after, gate_count)
        self._gates, self._recurrent = tape.parts
        self.hidden_gradient = torch.empty_like(self.gate_gradient)

    def fill(self, step: int, grad_h: Tensor) -> None:
        r, z, n = self._gates[step].chunk(3, dim=1)
        before = self.tape.hidden[step]
        grad_r, grad_z, grad_n = self.gate_gradient[step].chunk(3, dim=1)
        self._kept = grad_h * z
        tanh_backward(grad_h - self._kept, n, grad_input=grad_n)
        sigmoid_backward(grad_n * self._recurrent[step], r, grad_input=grad_r)
        sigmoid_backward(grad_h * (before - n), z, grad_input=grad_z)

    def hidden_side(self, step: int) -> Tensor:
        units = self.tape.hidden.shape[2]
        grad, hidden = self.gate_gradient[step], self.hidden_gradient[step]
        hidden[:, : 2 * units] = grad[:, : 2 * units]
        torch.mul(grad[:, 2 * units :], self._gates[step][:, :units], out=hidden[:, 2 * units :])
        return hidden

    def through(self, step: int, grad_gates: Tensor) -> None:
        self.grad_h = self._kept + grad_gates

    def grad_state(self) -> State:
        return (self.grad_h,)
