"""How sure an upper bound is that was taken from measurements: order statistics, nothing assumed but order.

If the next measurement and the n that were seen are exchangeable, each of the n + 1 is the largest with the
same probability: the next one exceeds the largest of n with probability 1 / (n + 1) at most. A bound that
takes the largest of several quantities at once fails when any of them does: their probabilities add up
(Bonferroni). Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World (2005), section 2.2.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Coverage:
    """How many measurements a bound rests on."""

    measurements: int
    quantities: int = 1
    """Quantities of each measurement whose largest was taken."""

    @property
    def ratio(self) -> float:
        """At least this share of further measurements lies within, on average; 0: nothing is known."""
        return max(0.0, 1 - self.quantities / (self.measurements + 1))

    def __str__(self) -> str:
        return f"largest of {self.measurements}, bounds at least {self.ratio:.3f} of further ones"
