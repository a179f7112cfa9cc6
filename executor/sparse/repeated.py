"""One weight matrix against many small batches: packed once for oneDNN where that is faster.

A recurrence multiplies the same U with [B, H] at every step. The ordinary product arranges U anew at every
call, which at H = 512 and B = 32 takes half as long again as the product itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from executor.sparse.cell import Weights, linear
from executor.sparse.faster import is_faster

LEAST_STEPS = 8
"""Fewer steps do not pay for packing; a single one must be torch's own product, bit for bit."""

Product = Callable[[Tensor], Tensor]


def repeated_linear(weight: Tensor, bias: Tensor | None, *, rows: int, steps: int) -> Product:
    """The function x [rows, in] -> x W^T + b, about to be called `steps` times, for W [out, in].

    Packed where oneDNN takes it and was seen to be faster at this size; equal up to rounding.
    """
    if steps >= LEAST_STEPS and _can_be_packed(weight) and packing_pays(rows, *weight.shape):
        return _packed(weight, bias, rows)
    return lambda x: linear(x, weight, bias)


def hidden_side(weights: Weights, *, rows: int, steps: int) -> Product:
    """The function h [rows, H] -> h U^T + b of a layer that is about to run `steps` steps."""
    return repeated_linear(weights.weight_hh, weights.bias_hh, rows=rows, steps=steps)


@cache
def packing_pays(rows: int, outputs: int, inputs: int) -> bool:
    """Whether LEAST_STEPS packed products of this size, the packing included, are faster than ordinary ones.

    Measured once per process. On zeros: the time does not depend on the values.
    """
    weight, x = torch.zeros(outputs, inputs), torch.zeros(rows, inputs)

    def run(product: Product) -> Tensor:
        for _ in range(LEAST_STEPS):
            y = product(x)
        return y

    return is_faster(lambda: run(_packed(weight, None, rows)), lambda: run(lambda x: linear(x, weight, None)))


def _packed(weight: Tensor, bias: Tensor | None, rows: int) -> Product:
    operations = torch.ops.mkldnn
    packed = operations._reorder_linear_weight(weight.detach(), rows)  # noqa: SLF001 - no public name yet
    product = operations._linear_pointwise  # noqa: SLF001
    return lambda x: product(x, packed, bias, "none", [], "")


def _can_be_packed(weight: Tensor) -> bool:
    operations = torch.ops.mkldnn
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and bool(torch.backends.mkldnn.enabled)
        and hasattr(operations, "_reorder_linear_weight")
        and hasattr(operations, "_linear_pointwise")
    )
