"""Fixed-point numbers and the multiplication that can be undone.

Source: MacKay, Vicol, Ba, Grosse (2018), arXiv:1810.10999, after algorithm 3 of Maclaurin, Duvenaud, Adams
(2015), arXiv:1502.03492.

States have 23 fractional bits, forget factors 10. All these integers are carried in float64 tensors: below
2**51 sums, products and floors of quotients of integers are exact there, and float64 division is vectorised
where 64-bit integer division is not.

Notation of this file:
    fixed   a state times 2**23            factor  a forget gate times 2**10, in 1..2**10
    buffer  what fell out of `fixed` so far: a number in mixed radix, at least 0
"""

from __future__ import annotations

import torch
from torch import Tensor

FRACTION_BITS = 23
FACTOR_BITS = 10
ONE = float(2**FRACTION_BITS)
FACTOR_ONE = float(2**FACTOR_BITS)
EXACT_BITS = 51
"""Below 2**51 a float64 quotient of integers, the divisor below 2**11, never rounds up to an integer."""


def to_fixed(value: Tensor) -> Tensor:
    """The integers nearest to `value` * 2**23, in float64."""
    return torch.round(value.double() * ONE)


def to_value(fixed: Tensor, dtype: torch.dtype) -> Tensor:
    """`fixed` / 2**23; exact in float64, and in float32 while the value is within [-2, 2]."""
    return fixed.mul(1 / ONE).to(dtype)


def multiply(fixed: Tensor, buffer: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """`fixed` times factor / 2**10, and the buffer with what that loses; `divide` is the inverse.

    The low 10 bits of `fixed` enter the buffer, and a digit in base `factor` leaves it to fill the product's
    low end: the buffer grows by 10 - log2(factor) bits. Needs |fixed| < 2**51 and buffer < 2**41.
    """
    coarse = torch.floor(fixed * (1 / FACTOR_ONE))
    pool = torch.sub(fixed, coarse, alpha=FACTOR_ONE).add_(buffer, alpha=FACTOR_ONE)
    shrunk = torch.div(pool, factor).floor_()
    digit = torch.addcmul(pool, shrunk, factor, value=-1)
    return torch.addcmul(digit, coarse, factor), shrunk


def divide(fixed: Tensor, buffer: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """The `fixed` and `buffer` that `multiply` was given, from what it returned."""
    coarse = torch.div(fixed, factor).floor_()
    pool = torch.addcmul(fixed, coarse, factor, value=-1).addcmul_(buffer, factor)
    shrunk = torch.floor(pool * (1 / FACTOR_ONE))
    digit = torch.sub(pool, shrunk, alpha=FACTOR_ONE)
    return digit.add_(coarse, alpha=FACTOR_ONE), shrunk
