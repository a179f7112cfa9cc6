"""Are these gradients those of full BPTT? Compared tensor by tensor, the worst one named.

Sums are added in another order when an iteration runs in segments, so gradients agree to rounding and
not to the bit. The tolerances are ten times and more what the sums of full BPTT themselves are off: in
float32, biases that add up 32,000 terms are 4e-6 off their value in float64.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

TOLERANCES: dict[torch.dtype, float] = {
    torch.float64: 1e-12,
    torch.float32: 5e-5,
    torch.float16: 2e-2,
    torch.bfloat16: 1e-1,
}
"""Largest accepted difference of a gradient, relative to its own largest entry, per dtype."""

Gradients = Mapping[str, Tensor | None]
"""Gradients by parameter name; None where there is none."""


@dataclass(frozen=True)
class GradientDifference:
    """How far the gradient of one tensor is from that of full BPTT."""

    name: str
    absolute: float
    """Largest absolute difference of any entry; inf where only one gradient exists or one is not finite."""
    relative: float
    """The same over the largest absolute entry of full BPTT's gradient."""


@dataclass(frozen=True)
class GradientCheck:
    """A comparison of all gradients, worst first."""

    dtype: str
    steps: int
    """Length of the sequence at which they were compared."""
    tolerance: float
    differences: tuple[GradientDifference, ...]

    @property
    def largest_relative_difference(self) -> float:
        """Of any tensor, relative to the tensor's largest entry: what the tolerance is about."""
        return max((each.relative for each in self.differences), default=0.0)

    @property
    def largest_absolute_difference(self) -> float:
        """Of any entry of any tensor."""
        return max((each.absolute for each in self.differences), default=0.0)

    @property
    def passed(self) -> bool:
        """True when every difference is within the tolerance."""
        return self.largest_relative_difference <= self.tolerance

    def record(self) -> dict[str, object]:
        """The check as it stands in a report: JSON has no infinity, so that is the largest number there."""
        worst = self.differences[0].name if self.differences else None
        return {
            "passed": self.passed,
            "length": self.steps,
            "dtype": self.dtype,
            "tolerance": self.tolerance,
            "largest_difference": min(self.largest_absolute_difference, sys.float_info.max),
            "largest_relative_difference": min(self.largest_relative_difference, sys.float_info.max),
            "worst_tensor": worst,
        }

    def __str__(self) -> str:
        over = [each for each in self.differences if not each.relative <= self.tolerance]
        where = f"{self.dtype} gradients over {self.steps} steps"
        if not over:
            return f"{where} equal those of full BPTT to {self.largest_relative_difference:.1e}"
        named = ", ".join(f"{each.name} by {each.relative:.1e}" for each in over[:5])
        more = f" and {len(over) - 5} more" if len(over) > 5 else ""
        return f"{where} differ from full BPTT by more than {self.tolerance:g}: {named}{more}"


def compare_gradients(expected: Gradients, found: Gradients, *, steps: int) -> GradientCheck:
    """Compare gradients by name. The tolerance is that of the coarsest dtype.

    Raises ValueError when the two do not name the same tensors.
    """
    if expected.keys() != found.keys():
        names = sorted(expected.keys() ^ found.keys())
        raise ValueError(f"gradients of different tensors cannot be compared: {', '.join(names)}")
    dtypes = {each.dtype for each in expected.values() if each is not None} or {torch.float64}
    coarsest = max(dtypes, key=lambda dtype: TOLERANCES[dtype])
    differences = [_difference(name, expected[name], found[name]) for name in expected]
    differences.sort(key=lambda each: -each.relative)
    return GradientCheck(
        dtype=str(coarsest).removeprefix("torch."),
        steps=steps,
        tolerance=TOLERANCES[coarsest],
        differences=tuple(differences),
    )


def gradients_of(module: torch.nn.Module) -> dict[str, Tensor | None]:
    """The gradients that the parameters hold now, by name."""
    return {name: parameter.grad for name, parameter in module.named_parameters()}


def _difference(name: str, expected: Tensor | None, found: Tensor | None) -> GradientDifference:
    if expected is None and found is None:
        return GradientDifference(name, 0.0, 0.0)
    if expected is None or found is None or expected.shape != found.shape:
        return GradientDifference(name, math.inf, math.inf)
    if torch.equal(expected, found):
        return GradientDifference(name, 0.0, 0.0)
    distance = float((expected.double() - found.double()).abs().max())
    scale = float(expected.double().abs().max())
    if not (math.isfinite(distance) and math.isfinite(scale)):
        return GradientDifference(name, math.inf, math.inf)
    return GradientDifference(name, distance, distance / scale if scale else math.inf)
