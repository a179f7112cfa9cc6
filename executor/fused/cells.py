"""nn.LSTMCell and nn.GRUCell for loops of one's own, on our kernels.

    cell = LSTMCell.from_torch(torch_cell)
    h, c = cell(x_t, (h, c))

They share the parameters of the torch cell, under the same names, and compute what it computes up to the
rounding of sums. In an unrolled loop the gradients of the weights are added to their totals in place.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from executor.fused.choice import own_kernels
from executor.fused.layer import Weights, run_layer


class _Cell(nn.Module):
    """What both cells have in common."""

    torch_class: type[nn.RNNCellBase]
    mode: str
    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor
    bias_hh: Tensor

    def __init__(self, cell: nn.RNNCellBase) -> None:
        super().__init__()
        if type(cell) is not self.torch_class:
            expected, given = self.torch_class.__name__, type(cell).__name__
            raise TypeError(f"{type(self).__name__} takes over a torch.nn.{expected}, not a {given}")
        self.hidden_size = cell.hidden_size
        self.bias = cell.bias
        for name, parameter in cell.named_parameters():
            self.register_parameter(name, parameter)

    @classmethod
    def from_torch(cls, cell: nn.RNNCellBase) -> Self:
        """A cell that shares the parameters of `cell`. Raises TypeError for another kind of module."""
        return cls(cell)

    def _run(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        biases = (self.bias_ih, self.bias_hh) if self.bias else (None, None)
        weights = Weights(self.weight_ih, self.weight_hh, *biases)
        kernels = own_kernels(x, self.weight_ih) if x.dim() == 2 else None
        if kernels is None:
            return self._run_torch(x, state, weights)
        _, after = run_layer(kernels, self.mode, x.unsqueeze(0), state, weights)
        return after

    def _run_torch(self, x: Tensor, state: tuple[Tensor, ...], weights: Weights) -> tuple[Tensor, ...]:
        raise NotImplementedError


class LSTMCell(_Cell):
    """A torch.nn.LSTMCell: (x [batch, input], (h, c)) -> (h, c)."""

    torch_class = nn.LSTMCell
    mode = "LSTM"

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """The state after one step."""
        return self._run(x, state)

    def _run_torch(self, x: Tensor, state: tuple[Tensor, ...], weights: Weights) -> tuple[Tensor, ...]:
        given: Any = (x, state, *weights.all)
        return tuple(torch.lstm_cell(*given))


class GRUCell(_Cell):
    """A torch.nn.GRUCell: (x [batch, input], h) -> h."""

    torch_class = nn.GRUCell
    mode = "GRU"

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """The state after one step."""
        return self._run(x, (h,))[0]

    def _run_torch(self, x: Tensor, state: tuple[Tensor, ...], weights: Weights) -> tuple[Tensor, ...]:
        given: Any = (x, state[0], *weights.all)
        return (torch.gru_cell(*given),)
