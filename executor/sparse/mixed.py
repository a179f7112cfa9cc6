"""Columns for what flows on, sampled rows for what is learned.

The two uses of a gate gradient bear different damage. The gradient that flows on to h_{t-1} and x_t may lose
most of its columns: what it adds is small next to what comes straight from each step's loss. The weight
gradients lose much by that (whole rows of U get no gradient at all), but they are a sum over k * B rows,
which can be sampled without bias: row r is kept with probability p_r, proportional to its norm and at most 1,
and divided by p_r.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor

from executor.sparse.backward_pass import BackwardPass, Layer, Macs
from executor.sparse.columns import Columns, StretchedPass
from executor.sparse.errors import require_share
from executor.sparse.faster import fastest_rows
from executor.sparse.gathered import Products, weights_of_rows


@dataclass(frozen=True)
class Mixed(Columns):
    """`Columns` for the gradients of h and x, a sample of `row_ratio` of all rows for those of W and U.

    Biases are summed over all rows. Raises InvalidSparsity.
    """

    keep_ratio: float = 0.125
    row_ratio: float = 0.5

    drops_in_place = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share("row_ratio", self.row_ratio)

    def backward_pass(self, layer: Layer, random: Random) -> BackwardPass:
        """See Rule."""
        return _MixedPass(layer, self, random.random())


class Sample(NamedTuple):
    """Rows with what to multiply them by."""

    rows: Tensor
    """Ascending indices, int64 [n]."""
    scales: Tensor
    """1 / probability, [n]."""


def sampled_rows(norms: Tensor, count: int, offset: float) -> Sample:
    """A sample of `count` rows in which row r comes with probability min(1, norm_r / t), without waiting.

    Systematic sampling: the probabilities, laid end to end, are hit at offset, offset + 1, …; offset is in
    [0, 1). t is such that they add up to `count`. It has the least variance for its size where rows are
    independent of what they are multiplied with.
    """
    sizes = norms.to(torch.float64).clamp_min_(torch.finfo(torch.float32).tiny)
    probabilities = (sizes / _threshold(sizes, count)).clamp_(max=1)
    ends = probabilities.cumsum(0)
    hits = torch.arange(count, device=norms.device, dtype=ends.dtype).add_(offset)
    rows = torch.searchsorted(ends, hits * (ends[-1] / count), right=True).clamp_(max=len(norms) - 1)
    return Sample(rows, (1 / probabilities.index_select(0, rows)).to(norms.dtype))


def _threshold(sizes: Tensor, count: int) -> Tensor:
    """The t for which the sum of min(1, size / t) is `count`."""
    descending = sizes.sort(descending=True).values
    rest = descending.flip(0).cumsum(0).flip(0)
    taken = torch.arange(len(sizes), device=sizes.device)
    candidates = rest / (count - taken).clamp_min_(1)
    certain = (descending > candidates).logical_and_(taken < count - 1).to(torch.int64).cumprod(0).sum()
    return candidates.index_select(0, certain[None])


class _MixedPass(StretchedPass):
    def __init__(self, layer: Layer, rule: Mixed, offset: float) -> None:
        super().__init__(layer, rule)
        self._offset = offset
        self._row_count = max(1, round(self.steps * self.batch * rule.row_ratio))
        self._products = self._products_that_pay()

    def _products_that_pay(self) -> Products | None:
        """None where all rows are faster."""
        gradient, rows = self.reversal.gate_gradient, self.steps * self.batch
        if self._row_count == rows:
            return None
        found = fastest_rows(
            rows,
            self._row_count,
            gradient.shape[2],
            self.weights.weight_hh.shape[1],
            device=gradient.device,
            dtype=gradient.dtype,
        )
        return found.products if found.pays else None

    def weight_gradients(self) -> tuple[Tensor, Tensor]:
        if self._products is None:
            return super().weight_gradients()
        norms = torch.linalg.vector_norm(self.reversal.gate_gradient.flatten(0, 1), dim=1)
        sample = sampled_rows(norms, self._row_count, self._offset)
        return weights_of_rows(self._products, self.reversal, *sample)

    def count(self, *, wants_x: bool) -> None:
        macs = Macs.of(self.layer, wants_x=wants_x)
        tally = self.layer.tally
        tally.add_forward(macs.forward)
        self.count_columns(macs.flow + macs.inputs, self.executed_ratio())
        ratio = 1.0 if self._products is None else self._row_count / (self.steps * self.batch)
        kept = torch.full((self.layer.gate_count,), ratio, device=self.weights.weight_hh.device)
        tally.add_product(
            dense_macs=macs.weights, executed_macs=round(macs.weights * ratio), kept_ratios=kept
        )
