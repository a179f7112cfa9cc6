"""One weight matrix against many small batches: packed once for oneDNN where that is faster.

A recurrence multiplies the same U with [B, H] at every step. The ordinary product arranges U anew at every
call, which at H = 512 and B = 32 takes half as long again as the product itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from executor.sparse.cell import linear
from executor.sparse.timing import decided_once, seconds_to_choose_by
from executor.torch_weights import TorchWeights

LEAST_STEPS = 8
"""Fewer steps do not pay for packing; a single one must be torch's own product, bit for bit."""

Product = Callable[[Tensor], Tensor]


def repeated_linear(weight: Tensor, bias: Tensor | None, *, rows: int, steps: int) -> Product:
    """The function x [rows, in] -> x W^T + b, about to be called `steps` times, for W [out, in].

    Packed where oneDNN takes it and was seen to be faster at this size; equal up to rounding.
    """
    if steps >= LEAST_STEPS and _can_be_packed(weight) and packing_pays(rows, *weight.shape, steps=steps):
        return _packed(weight, bias, rows)
    return lambda x: linear(x, weight, bias)


def hidden_side(weights: TorchWeights, *, rows: int, steps: int) -> Product:
    """The function h [rows, H] -> h U^T + b of a layer that is about to run `steps` steps."""
    transposed = weights.weight_hh.t()
    if steps >= LEAST_STEPS and _can_be_packed(
        transposed
    ):  # timed now: on the way back tapes fill the budget
        packing_pays(rows, *transposed.shape, steps=steps)
    return repeated_linear(weights.weight_hh, weights.bias_hh, rows=rows, steps=steps)


def packing_pays(rows: int, outputs: int, inputs: int, *, steps: int) -> bool:
    """Whether packing once and `steps` packed products take less time than as many ordinary ones."""
    seconds = _seconds(rows, outputs, inputs)
    return seconds.packing + steps * seconds.packed < steps * seconds.ordinary


class _Seconds(NamedTuple):
    packing: float
    packed: float
    ordinary: float


@decided_once
def _seconds(rows: int, outputs: int, inputs: int) -> _Seconds:
    """Measured once per size and process, on zeros: the time does not depend on the values."""
    weight, x = _zeros(outputs, inputs), _zeros(rows, inputs)
    product = _packed(weight, None, rows)
    return _Seconds(
        *seconds_to_choose_by(
            lambda: _reordered(weight, rows), lambda: product(x), lambda: linear(x, weight, None)
        )
    )


def _zeros(*shape: int) -> Tensor:
    """Of the type that is packed, whatever torch's default type is."""
    return torch.zeros(shape, dtype=torch.float32, device="cpu")


def _packed(weight: Tensor, bias: Tensor | None, rows: int) -> Product:
    packed, product = _reordered(weight, rows), torch.ops.mkldnn._linear_pointwise  # noqa: SLF001
    return lambda x: product(x, packed, bias, "none", [], "")


def _reordered(weight: Tensor, rows: int) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), rows)  # noqa: SLF001 - no public name
    return packed


def _can_be_packed(weight: Tensor) -> bool:
    operations = torch.ops.mkldnn
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and bool(torch.backends.mkldnn.enabled)
        and hasattr(operations, "_reorder_linear_weight")
        and hasattr(operations, "_linear_pointwise")
    )
