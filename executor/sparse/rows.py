"""Whole rows of the gate gradient: sequences of the batch that pass nothing on for a stretch of steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from random import Random

import torch
from torch import Tensor

from executor.sparse.backward_pass import BackwardPass, Layer, Macs
from executor.sparse.errors import require_count, require_share
from executor.sparse.faster import Fastest, fastest_sequences
from executor.sparse.gathered import weights_of_rows
from executor.sparse.leftover import largest_entries, showing
from executor.sparse.rule import Rule


@dataclass(frozen=True)
class Rows(Rule):
    """Keep `keep_ratio` of the rows of [B, G*H], at least one: those with the largest sum of |entry|.

    They are chosen at the last step of every stretch of `share_steps` steps. A row that is zero there, such
    as that of a sequence whose loss comes earlier, leaves its place to the first that is not. Raises
    InvalidSparsity.
    """

    keep_ratio: float = 0.5
    share_steps: int = 5

    def __post_init__(self) -> None:
        require_share("keep_ratio", self.keep_ratio)
        require_count("share_steps", self.share_steps)

    def backward_pass(self, layer: Layer, random: Random) -> BackwardPass:
        """See Rule."""
        return _RowPass(layer, self)

    def kept_rows(self, sizes: Tensor) -> Tensor:
        """The rows of a gate gradient to keep, given each one's sum of |entry|: int64 in ascending order."""
        kept = max(1, round(len(sizes) * self.keep_ratio))
        return sizes.topk(kept, sorted=False).indices.sort().values


class _RowPass(BackwardPass):
    def __init__(self, layer: Layer, rule: Rows) -> None:
        super().__init__(layer)
        self._rule = rule
        self._rows = torch.empty(0, dtype=torch.int64, device="cpu")
        self._ones_and_zeros = torch.empty(0, device="cpu")
        """1 for a row that is kept, else 0, [B, 1]: what it leaves of an infinite entry is NaN."""
        self._has_place = torch.zeros(self.batch, dtype=torch.bool, device=layer.weights.weight_hh.device)
        """Rows that were not zero when they were chosen."""
        self._is_settled = False
        """Whether they are as many as are kept."""
        self._kept: list[Tensor] = []
        """Indices into the k * B rows, for each step on the way back."""
        self._products, self._pays = self._fastest()

    def _fastest(self) -> Fastest:
        gradient, weight = self.reversal.gate_gradient, self.weights.weight_hh
        kept = max(1, round(self.batch * self._rule.keep_ratio))
        sizes = (self.batch, kept, gradient.shape[2], weight.shape[1])
        return fastest_sequences(*sizes, device=gradient.device, dtype=gradient.dtype)

    def drop(self, step: int) -> None:
        gradient = self.reversal.gate_gradient[step]
        if (self.steps - 1 - step) % self._rule.share_steps == 0:
            self._has_place, self._is_settled = self._has_place & False, False
        if not self._is_settled:
            self._choose(gradient)
        self._kept.append(self._rows + step * self.batch)
        gradient.mul_(self._ones_and_zeros)

    def _choose(self, gradient: Tensor) -> None:
        """Give the places of rows that are still zero to the largest of those that have none."""
        sizes = gradient.abs().sum(1)
        self.layer.tally.note_entries(sizes)
        self._rows = self._rule.kept_rows(sizes.masked_fill(self._has_place, math.inf))
        self._has_place = torch.zeros_like(self._has_place).index_fill_(0, self._rows, True)
        self._ones_and_zeros = self._has_place[:, None].to(gradient.dtype)
        self._has_place &= sizes != 0
        self._is_settled = bool(self._has_place.index_select(0, self._rows).all())

    def flow(self, step: int, hidden: Tensor) -> Tensor:
        if not self._pays:
            return super().flow(step, hidden)
        return self._products.at_rows(hidden, self.weights.weight_hh, self._rows)

    def weight_gradients(self) -> tuple[Tensor, Tensor]:
        if not self._pays:
            return super().weight_gradients()
        found = weights_of_rows(self._products, self.reversal, torch.cat(self._kept[::-1]))
        return showing(found, self._largest)

    def input_gradient(self) -> Tensor:
        if not self._pays:
            return super().input_gradient()
        rows = torch.cat(self._kept[::-1])
        gradient = self.reversal.gate_gradient.flatten(0, 1)
        product = self._products.at_rows(gradient, self.weights.weight_ih, rows)
        return product.view_as(self.reversal.tape.x)

    @cached_property
    def _largest(self) -> Tensor:
        """The largest |entry| that is left of each row, [k, B]."""
        return largest_entries(self.reversal.gate_gradient)

    def count(self, *, wants_x: bool) -> None:
        macs = Macs.of(self.layer, wants_x=wants_x)
        ran = len(self._rows) / self.batch if self._pays else 1.0
        kept = self._largest.count_nonzero().double() / self._largest.numel()
        self.layer.tally.add_forward(macs.forward)
        self.layer.tally.add_product(
            dense_macs=macs.backward,
            executed_macs=round(macs.backward * ran),
            kept_ratios=kept.expand(self.layer.gate_count),
        )
