"""What the two halves of a reversible cell have in common.

The state is split in two. A step computes the gates of the first half from the input and the second half and
updates the first; then the gates of the second half from the input and the *new* first half, and updates the
second. Undoing the step goes the other way round, and each time the gates can be computed again from what is
there. The gates are all that the gradient needs as well, so one computation of them serves both.

Shapes: B batch, m units of a half, g gates of a half; `pre` [B, g*m] is what the input and the bias
contribute to the gates, `weight` [g*m, m] the weights between the halves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from executor.reversible.register import Register

Parts = tuple[Tensor, ...]
"""One tensor [B, m] for each register of a half: (h,) of a RevGRU, (c, h) of a RevLSTM; h is the last."""


class HalfTape(NamedTuple):
    """What the gradient of half a step needs."""

    other: Tensor
    """The other half's h that the gates were computed from."""
    before: Parts
    after: Parts
    gates: Any
    """The NamedTuple of tensors that `gates` of the cell returned."""


class HalfGradient(NamedTuple):
    """Gradients of half a step."""

    before: Parts
    other: Tensor


class Cell(Protocol):
    """One kind of cell: the gates of a half, the update they make, its inverse and its gradient."""

    @property
    def register_count(self) -> int:
        """Registers of a half."""

    @property
    def gate_count(self) -> int:
        """g: gates of a half."""

    @property
    def forget_bits(self) -> int | None:
        """Most bits that a unit can forget in a step; None for a cell that never forgets."""

    def gates(self, pre: Tensor, other: Tensor, weight: Tensor) -> Any:
        """The gates of a half; the same inputs give the same bits."""

    def advance(self, gates: Any, registers: Sequence[Register]) -> None:
        """Update the half."""

    def reverse(self, gates: Any, registers: Sequence[Register]) -> None:
        """Undo `advance`."""

    def backward(self, tape: HalfTape, grads: Parts, weight: Tensor, grad_pre: Tensor) -> HalfGradient:
        """Gradients with respect to the half before the step and the other half; fills `grad_pre`."""

    def add_weight_gradient(self, tapes: Sequence[HalfTape], grad_pre: Tensor, total: Tensor) -> None:
        """Add the gradient of `weight` over the steps of `tapes`; grad_pre [steps * B, g*m] in their order.

        Product by product: inside a product, sums would run in another order than autograd's.
        """
