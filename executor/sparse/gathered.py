"""Products with what is left of a gate gradient [N, C] when whole columns or rows of it are dropped.

`GatheredProducts` copies what is kept into smaller matrices and multiplies these; on CUDA devices
`triton_kernels.IndexedProducts` reads it where it lies. Their results are equal up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from executor.sparse.cell import Reversal


class Products(Protocol):
    """Indices are int64, in ascending order, without repetition but for `of_rows`."""

    def through_columns(self, weight: Tensor, columns: Tensor) -> Callable[[Tensor], Tensor]:
        """The function gradient [N, C] -> gradient[:, columns] weight[columns], for a weight [C, width].

        The weight must stay as it is while the function is in use.
        """

    def add_columns(self, total: Tensor, gradient: Tensor, inputs: Tensor, columns: Tensor) -> None:
        """Add gradient[:, columns]^T inputs to the rows `columns` of `total` [C, width]."""

    def of_rows(
        self, gradient: Tensor, inputs: Sequence[Tensor], rows: Tensor, scales: Tensor | None
    ) -> tuple[Tensor, ...]:
        """Of each of `inputs` [N, width], the sum over `rows` of gradient[row]^T inputs[row] times the row's
        scale [n], [C, width].
        """

    def at_rows(self, gradient: Tensor, weight: Tensor, rows: Tensor) -> Tensor:
        """The product gradient weight [N, width] in `rows`, and zero in the others."""


class GatheredProducts:
    """See Products; on any device, in terms of torch operations."""

    def through_columns(self, weight: Tensor, columns: Tensor) -> Callable[[Tensor], Tensor]:
        """See Products; the weight is gathered once."""
        kept = weight.index_select(0, columns)
        return lambda gradient: torch.mm(gradient.index_select(1, columns), kept)

    def add_columns(self, total: Tensor, gradient: Tensor, inputs: Tensor, columns: Tensor) -> None:
        """See Products."""
        total.index_add_(0, columns, torch.mm(gradient.index_select(1, columns).t(), inputs))

    def of_rows(
        self, gradient: Tensor, inputs: Sequence[Tensor], rows: Tensor, scales: Tensor | None
    ) -> tuple[Tensor, ...]:
        """See Products."""
        kept = gradient.index_select(0, rows).t()
        return tuple(torch.mm(kept, _scaled(part.index_select(0, rows), scales)) for part in inputs)

    def at_rows(self, gradient: Tensor, weight: Tensor, rows: Tensor) -> Tensor:
        """See Products."""
        product = torch.mm(gradient.index_select(0, rows), weight)
        return product.new_zeros(gradient.shape[0], weight.shape[1]).index_copy_(0, rows, product)


def _scaled(inputs: Tensor, scales: Tensor | None) -> Tensor:
    return inputs if scales is None else inputs.mul_(scales[:, None])


def weights_of_rows(
    products: Products, reversal: Reversal, rows: Tensor, scales: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Gradients of W and U from `rows`, indices into a segment's k * B rows, each times its scale [n]."""
    gates, hidden = reversal.gate_gradient.flatten(0, 1), reversal.hidden_gradient.flatten(0, 1)
    # Of the k + 1 steps of h, row r is that before the step of row r.
    x, h = reversal.tape.x.flatten(0, 1), reversal.tape.hidden.flatten(0, 1)
    if reversal.hidden_gradient is reversal.gate_gradient:
        weight_ih, weight_hh = products.of_rows(gates, (x, h), rows, scales)
        return weight_ih, weight_hh
    ((weight_ih,), (weight_hh,)) = (
        products.of_rows(gradient, (inputs,), rows, scales) for gradient, inputs in ((gates, x), (hidden, h))
    )
    return weight_ih, weight_hh
