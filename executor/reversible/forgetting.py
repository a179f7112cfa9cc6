"""How much a forget gate may forget: the integer factors of the exact multiplication.

Source: MacKay et al. (2018), arXiv:1810.10999, section 5 and the authors' code: z' = a * z + (1 - a) with
a = 1 - 2**-n keeps the gate above 2**-n, so that a step forgets at most n bits of a unit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from executor.reversible.errors import InvalidReversible
from executor.reversible.fixed_point import FACTOR_BITS, FACTOR_ONE


@dataclass(frozen=True)
class Forgetting:
    """At most `forget_bits` bits a unit and step; 10 bits, those of the factors, are no limit."""

    forget_bits: int

    @classmethod
    def of(cls, forget_bits: int | None) -> Forgetting:
        """`forget_bits` in 1..10, or None for no limit. Raises InvalidReversible otherwise."""
        if forget_bits is None:
            return cls(FACTOR_BITS)
        if isinstance(forget_bits, bool) or not isinstance(forget_bits, int):
            raise InvalidReversible(
                f"forget_bits={forget_bits!r} must be a whole number, or None for no limit"
            )
        if not 1 <= forget_bits <= FACTOR_BITS:
            raise InvalidReversible(
                f"forget_bits={forget_bits} must be in 1..{FACTOR_BITS}: forget gates have {FACTOR_BITS} "
                "fractional bits; None sets no limit"
            )
        return cls(forget_bits)

    @property
    def least_factor(self) -> float:
        """The factor of a closed gate; without a limit, 1 stands for 0, by which nothing can be divided."""
        return FACTOR_ONE * 2.0**-self.forget_bits

    @property
    def slope(self) -> float:
        """A of the source: derivative of the limited gate with respect to the gate.

        Without a limit the factors still end at 1, so that the slope is 1 - 2**-10.
        """
        return 1 - 2.0**-self.forget_bits

    def factor(self, gate: Tensor) -> Tensor:
        """The integers nearest to 2**10 times the limited gate, in the type of `gate`."""
        return torch.round(gate * (FACTOR_ONE - self.least_factor) + self.least_factor)
