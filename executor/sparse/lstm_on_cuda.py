"""LSTM steps on CUDA by the kernels of torch.nn.LSTMCell: one launch for all gates, one for their gradients.

A launch takes the host some microseconds, whatever is launched, and an iteration of small products is as long
as its launches: operation by operation, a step forward and back takes three times as many.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from executor.sparse.cell import Reversal, State, Tape, room_after
from executor.torch_weights import TorchWeights

_FORWARD, _BACKWARD = "_thnn_fused_lstm_cell", "_thnn_fused_lstm_cell_backward_impl"
"""They have no public names; torch.nn.LSTMCell calls them on CUDA."""


def has_kernels(x: Tensor) -> bool:
    """Whether steps of `x` run by them."""
    return x.is_cuda and all(hasattr(torch.ops.aten, name) for name in (_FORWARD, _BACKWARD))


def _kernel(name: str) -> Any:
    return getattr(torch.ops.aten, name).default


def advance(x: Tensor, state: State, weights: TorchWeights) -> tuple[Tape, State]:
    """See Cell; the tape keeps c before the first step and after each, k + 1 of [B, H], then what the kernel
    keeps of each step, k of [B, 4H]. Bits of a single step are those of torch.nn.LSTMCell.
    """
    steps, biases, kernel = len(x), (weights.bias_ih, weights.bias_hh), _kernel(_FORWARD)
    from_x = torch.mm(x.flatten(0, 1), weights.weight_ih.t()).view(steps, x.shape[1], -1)
    hidden, recurrent = room_after(state[0], steps), weights.weight_hh.t()
    cells, kept = [state[1]], []
    for step in range(steps):
        from_hidden = torch.mm(hidden[step], recurrent)
        after, c, gates = kernel(from_x[step], from_hidden, cells[-1], *biases)
        hidden[step + 1] = after
        cells.append(c)
        kept.append(gates)
    return Tape(x, hidden, (*cells, *kept)), (hidden[-1], cells[-1])


class CudaReversal(Reversal):
    """The way back through such a tape."""

    def __init__(self, tape: Tape, grad_after: State, gate_count: int) -> None:
        super().__init__(tape, grad_after, gate_count)
        steps = len(tape.x)
        self._cells, self._kept = tape.parts[: steps + 1], tape.parts[steps + 1 :]
        self._grad_c = grad_after[1]
        self._kernel = _kernel(_BACKWARD)

    def fill(self, step: int, grad_h: Tensor) -> None:
        """See Reversal."""
        before, after = self._cells[step : step + 2]
        grad, self._grad_c, _ = self._kernel(grad_h, self._grad_c, before, after, self._kept[step], False)
        self.gate_gradient[step] = grad

    def through(self, step: int, grad_gates: Tensor) -> None:
        """See Reversal."""
        self.grad_h = grad_gates

    def grad_state(self) -> State:
        """See Reversal."""
        return self.grad_h, self._grad_c
