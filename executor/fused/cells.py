"""nn.LSTMCell and nn.GRUCell for loops of one's own, on our kernels.

    cell = LSTMCell.from_torch(torch_cell)
    h, c = cell(x_t, (h, c))

They share the parameters of the torch cell, under the same names, and compute what it computes up to the
rounding of sums. In an unrolled loop the gradients of the weights are added to their totals in place. What
our kernels are not made for, torch's cell computes or refuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from torch import Tensor, nn

from executor.fused.choice import own_kernels
from executor.fused.layer import STATE_PARTS, run_step
from executor.taken_over import take_over_parameters
from executor.torch_weights import TorchWeights


class _Cell(nn.RNNCellBase):
    """What both cells have in common."""

    torch_class: ClassVar[type[nn.RNNCellBase]]
    mode: ClassVar[str]

    def __init__(self, cell: nn.RNNCellBase) -> None:
        nn.Module.__init__(self)
        if type(cell) is not self.torch_class:
            expected, given = self.torch_class.__name__, type(cell).__name__
            raise TypeError(f"{type(self).__name__} takes over a torch.nn.{expected}, not a {given}")
        self.input_size = cell.input_size
        self.hidden_size = cell.hidden_size
        self.bias = cell.bias
        biases = ("bias_ih", "bias_hh")
        take_over_parameters(self, cell, ("weight_ih", "weight_hh", *(biases if cell.bias else ())))
        if not cell.bias:
            for name in biases:
                self.register_parameter(name, None)

    @classmethod
    def from_torch(cls, cell: nn.RNNCellBase) -> Self:
        """A cell that shares the parameters of `cell`. Raises TypeError for another kind of module."""
        return cls(cell)

    def _own(self, x: Tensor, hx: Sequence[Tensor] | None) -> tuple[Tensor, ...] | None:
        """The state after one step by our kernels, from zeros for hx=None. None where the step is left to
        torch's cell, to refuse it too.
        """
        if x.dim() != 2 or x.shape[1] != self.input_size:
            return None
        shape, parts = (x.shape[0], self.hidden_size), STATE_PARTS[self.mode]
        state = [x.new_zeros(shape)] * parts if hx is None else hx
        if len(state) != parts or any(part.shape != shape for part in state):
            return None
        weights = TorchWeights(self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        kernels = own_kernels(x, weights, state)
        if kernels is None:
            return None
        return run_step(kernels, self.mode, x, tuple(state), weights)


class LSTMCell(_Cell, nn.LSTMCell):
    """A torch.nn.LSTMCell: (x [batch, input], (h, c)) -> (h, c)."""

    torch_class = nn.LSTMCell
    mode = "LSTM"

    def forward(
        self,
        input: Tensor,  # noqa: A002
        hx: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The state after one step."""
        after = self._own(input, hx)
        return super().forward(input, hx) if after is None else (after[0], after[1])


class GRUCell(_Cell, nn.GRUCell):
    """A torch.nn.GRUCell: (x [batch, input], h) -> h."""

    torch_class = nn.GRUCell
    mode = "GRU"

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:  # noqa: A002
        """The state after one step."""
        after = self._own(input, None if hx is None else (hx,))
        return super().forward(input, hx) if after is None else after[0]
