"""LSTM steps forward and their gate gradients backward, in the operations of torch.nn.LSTMCell.

    i, f, o = sigmoid(net)   g = tanh(net)   net = W x_t + U h_{t-1} + b
    c_t = f c_{t-1} + i g    h_t = o tanh(c_t)

    dc_t   = dh_t o (1 - tanh² c_t) + f_{t+1} dc_{t+1}
    dnet_i = dc g (1 - i) i     dnet_f = dc c_{t-1} (1 - f) f     dnet_g = dc i (1 - g²)
    dnet_o = dh tanh(c) (1 - o) o

(Zhu et al., Training LSTM with Sparsified SGD, 2017.) The four dnet side by side, in torch's order i, f, g, o
are the gate gradient. Operations and their order are those that autograd runs for torch's own cell, so that a
gradient of which nothing is dropped is that of the dense cell bit for bit.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from executor.sparse import lstm_on_cuda
from executor.sparse.cell import Cell, Reversal, State, Tape, input_side, room_after
from executor.sparse.native import native_advance, native_fill
from executor.sparse.repeated import hidden_side
from executor.torch_weights import TorchWeights

sigmoid_backward = torch.ops.aten.sigmoid_backward
tanh_backward = torch.ops.aten.tanh_backward


class LstmCell(Cell):
    """The cell of torch.nn.LSTM."""

    gate_names: ClassVar[tuple[str, ...]] = ("i", "f", "g", "o")
    state_names: ClassVar[tuple[str, ...]] = ("h", "c")

    def advance(self, x: Tensor, state: State, weights: TorchWeights) -> tuple[Tape, State]:
        """See Cell; the tape keeps the gates [k, B, 4H], c [k + 1, B, H] and tanh(c) [k, B, H]; on CUDA what
        torch's kernels keep.
        """
        if lstm_on_cuda.has_kernels(x):
            return lstm_on_cuda.advance(x, state, weights)
        gates = input_side(x, weights)
        hidden, cells = room_after(state[0], len(x)), room_after(state[1], len(x))
        squashed = torch.empty_like(cells[1:])
        recurrent = hidden_side(weights, rows=x.shape[1], steps=len(x))
        native = native_advance(gates, steps=len(x))
        for step in range(len(x)):
            from_hidden, after = recurrent(hidden[step]), (cells[step + 1], squashed[step], hidden[step + 1])
            if native is not None:
                native(from_hidden, cells[step], gates[step], *after)
                continue
            net = gates[step].add_(from_hidden)
            # Gate by gate, as torch does it: vectors and what is left over then meet the same elements.
            i, f, g, o = net.chunk(4, dim=1)
            i.sigmoid_()
            f.sigmoid_()
            g.tanh_()
            o.sigmoid_()
            torch.mul(f, cells[step], out=cells[step + 1]).add_(i * g)
            torch.tanh(cells[step + 1], out=squashed[step])
            torch.mul(o, squashed[step], out=hidden[step + 1])
        return Tape(x, hidden, (gates, cells, squashed)), (hidden[-1], cells[-1])

    def reversal(self, tape: Tape, grad_after: State) -> Reversal:
        """See Cell."""
        kind = lstm_on_cuda.CudaReversal if lstm_on_cuda.has_kernels(tape.x) else _LstmReversal
        return kind(tape, grad_after, len(self.gate_names))


class _LstmReversal(Reversal):
    def __init__(self, tape: Tape, grad_after: State, gate_count: int) -> None:
        super().__init__(tape, grad_after, gate_count)
        self._gates, self._cells, self._squashed = tape.parts
        self._grad_c = grad_after[1].clone(memory_format=torch.contiguous_format)
        self._native = native_fill(self._gates)

    def fill(self, step: int, grad_h: Tensor) -> None:
        if self._native is None:
            self._fill(step, grad_h)
            return
        cells, squashed = self._cells[step], self._squashed[step]
        self._native(self._gates[step], cells, squashed, grad_h, self._grad_c, self.gate_gradient[step])

    def _fill(self, step: int, grad_h: Tensor) -> None:
        units = grad_h.shape[1]
        net = self._gates[step]
        i, f, g, o = net.chunk(4, dim=1)
        squashed, before = self._squashed[step], self._cells[step]
        grad_c = self._grad_c + tanh_backward(grad_h * o, squashed)
        grad = self.gate_gradient[step]
        torch.mul(grad_c, g, out=grad[:, :units])
        torch.mul(grad_c, before, out=grad[:, units : 2 * units])
        torch.mul(grad_c, i, out=grad[:, 2 * units : 3 * units])
        torch.mul(grad_h, squashed, out=grad[:, 3 * units :])
        _through_activations(grad, net, units)
        self._grad_c = grad_c * f

    def through(self, step: int, grad_gates: Tensor) -> None:
        self.grad_h = grad_gates

    def grad_state(self) -> State:
        return self.grad_h, self._grad_c


def _through_activations(grad: Tensor, net: Tensor, units: int) -> None:
    """From gradients of the activated gates `net` to those of what entered them, in place."""
    for part, backward in (
        (slice(0, 2 * units), sigmoid_backward),
        (slice(2 * units, 3 * units), tanh_backward),
        (slice(3 * units, 4 * units), sigmoid_backward),
    ):
        backward(grad[:, part], net[:, part], grad_input=grad[:, part])
