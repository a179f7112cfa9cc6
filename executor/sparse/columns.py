"""Whole columns of the gate gradient: gate units that are dropped for the batch and for a stretch of steps.

What is left is a smaller matrix. Its columns and the rows of U that they meet are gathered, and each product
of the way back shrinks in proportion.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from random import Random

import torch
from torch import Tensor

from executor.sparse.backward_pass import BackwardPass, Layer, Macs
from executor.sparse.errors import InvalidSparsity, require_count, require_share
from executor.sparse.faster import fastest_columns, fastest_outer_columns
from executor.sparse.leftover import largest_entries, showing
from executor.sparse.rule import Rule


@dataclass(frozen=True)
class Columns(Rule):
    """Keep `keep_ratio` of the columns of [B, G*H]: those with the largest sum of |entry| over the batch.

    They are chosen at the last step of every stretch of `share_steps` steps, where the way back enters it; at
    the first that is not zero, where the loss comes earlier.
    With `block_size` > 1, blocks of that many neighbouring columns are kept or dropped together.
    Raises InvalidSparsity.
    """

    keep_ratio: float = 0.25
    share_steps: int = 25
    block_size: int = 1

    def __post_init__(self) -> None:
        require_share("keep_ratio", self.keep_ratio)
        require_count("share_steps", self.share_steps)
        require_count("block_size", self.block_size)

    def require_columns(self, columns: int) -> None:
        """Raise InvalidSparsity when the blocks do not divide that many columns."""
        if columns % self.block_size:
            raise InvalidSparsity("block_size", f"{self.block_size} does not divide the {columns} columns")

    def backward_pass(self, layer: Layer, random: Random) -> BackwardPass:
        """See Rule."""
        return _ColumnPass(layer, self)

    def kept_columns(self, gradient: Tensor) -> Tensor:
        """The columns of one step's gate gradient to keep, int64 in ascending order."""
        return largest_blocks(gradient.abs().sum(0), self.keep_ratio, self.block_size)


def largest_blocks(scores: Tensor, keep_ratio: float, block_size: int) -> Tensor:
    """Indices, ascending, of the blocks of neighbours with the largest sums of `scores`: at least one."""
    blocks = scores.view(-1, block_size).sum(1)
    kept = blocks.topk(max(1, round(len(blocks) * keep_ratio)), sorted=False).indices.sort().values
    return (kept[:, None] * block_size + torch.arange(block_size, device=scores.device)).flatten()


class Stretch:
    """Steps that share their columns, and U with only the rows that meet them."""

    def __init__(self, layer: Layer, columns: Tensor, *, first: int, last: int) -> None:
        self.columns = columns
        self.first = first
        self.last = last
        gradient, self._weight = layer.reversal.gate_gradient, layer.weights.weight_hh
        found = fastest_columns(
            gradient.shape[1],
            gradient.shape[2],
            len(columns),
            self._weight.shape[1],
            device=gradient.device,
            dtype=gradient.dtype,
        )
        self.products, self.pays = found
        self._through = found.products.through_columns(self._weight, columns) if found.pays else None

    @cached_property
    def ones_and_zeros(self) -> Tensor:
        """1 for a column that is kept, else 0, [G*H]: what it leaves of an infinite entry is NaN."""
        return self._weight.new_zeros(self._weight.shape[0]).index_fill_(0, self.columns, 1)

    def end(self) -> None:
        """No step of it is to come: let go of what they shared, or every stretch would hold a part of U."""
        self._through = None
        vars(self).pop("ones_and_zeros", None)

    @property
    def steps(self) -> slice:
        """The steps of the stretch."""
        return slice(self.first, self.last + 1)

    def flow(self, hidden: Tensor) -> Tensor:
        """[B, G*H] without the columns that are dropped, times U."""
        if self._through is not None:
            return self._through(hidden)
        return torch.mm(masked(hidden, self.columns), self._weight)


def masked(gradient: Tensor, columns: Tensor) -> Tensor:
    """A copy of which only `columns` are not zero."""
    kept = torch.zeros_like(gradient)
    return kept.index_copy_(gradient.dim() - 1, columns, gradient.index_select(-1, columns))


class StretchedPass(BackwardPass):
    """Chooses columns for each stretch of steps, and lets the gradient of h flow through these alone."""

    def __init__(self, layer: Layer, rule: Columns) -> None:
        super().__init__(layer)
        self._rule = rule
        self.stretches: list[Stretch] = []
        """In the order of the way back: the last one first."""
        self._is_settled = False
        """Whether the columns of the stretch were chosen by a gradient that was not zero."""

    def drop(self, step: int) -> None:
        """Begin a stretch where the one after it has ended, and another where the gradient first comes in."""
        gradient, share_steps = self.reversal.gate_gradient[step], self._rule.share_steps
        steps_left = share_steps - (self.steps - 1 - step) % share_steps
        begins = steps_left == share_steps
        if self._is_settled and not begins:
            return
        self._is_settled = bool(self.layer.tally.note_entries(gradient))
        if not (begins or self._is_settled):
            return
        if self.stretches:
            self.stretches[-1].end()
        if not begins:
            self.stretches[-1].first = step + 1
        first, columns = max(0, step - steps_left + 1), self._rule.kept_columns(gradient)
        self.stretches.append(Stretch(self.layer, columns, first=first, last=step))

    def flow(self, step: int, hidden: Tensor) -> Tensor:
        """See BackwardPass."""
        return self.stretches[-1].flow(hidden)

    def input_gradient(self) -> Tensor:
        """Through the kept columns of each stretch."""
        x, weight = self.reversal.tape.x, self.weights.weight_ih
        grad_x = torch.empty_like(x)
        for stretch in self.stretches:
            gradient = self.reversal.gate_gradient[stretch.steps].flatten(0, 1)
            product = stretch.products.through_columns(weight, stretch.columns)(gradient)
            grad_x[stretch.steps] = product.view_as(grad_x[stretch.steps])
        return grad_x

    def something_left(self) -> Tensor:
        """1 for a step of which something is counted as left, else 0, [k]."""
        return torch.ones(self.steps, dtype=torch.float64, device=self.weights.weight_hh.device)

    def kept_columns_ratios(self) -> Tensor:
        """Share of columns kept per gate [G], over all steps."""
        gates, columns = self.layer.gate_count, self.reversal.gate_gradient.shape[2]
        units, something_left = columns // gates, self.something_left()
        kept = something_left.new_zeros(gates)
        for stretch in self.stretches:
            steps = something_left[stretch.steps].sum().expand(len(stretch.columns))
            kept.index_add_(0, stretch.columns // units, steps, alpha=1 / (self.steps * units))
        return kept

    def executed_ratio(self) -> float:
        """Share of the MACs of `flow` that ran."""
        columns = self.reversal.gate_gradient.shape[2]
        ran = sum(
            (stretch.last + 1 - stretch.first) * (len(stretch.columns) if stretch.pays else columns)
            for stretch in self.stretches
        )
        return ran / (self.steps * columns)

    def count_columns(self, dense_macs: int, executed_ratio: float) -> None:
        """Count a product that took the kept columns."""
        self.layer.tally.add_product(
            dense_macs=dense_macs,
            executed_macs=round(dense_macs * executed_ratio),
            kept_ratios=self.kept_columns_ratios(),
        )


class _ColumnPass(StretchedPass):
    """Every product takes the kept columns."""

    def drop(self, step: int) -> None:
        super().drop(step)
        self.reversal.gate_gradient[step].mul_(self.stretches[-1].ones_and_zeros)

    def weight_gradients(self) -> tuple[Tensor, Tensor]:
        if not self.stretches[-1].pays:
            return super().weight_gradients()
        tape, reversal = self.reversal.tape, self.reversal
        weight_ih, weight_hh = (
            torch.zeros_like(self.weights.weight_ih),
            torch.zeros_like(self.weights.weight_hh),
        )
        for stretch in self.stretches:
            for total, gradient, inputs in (
                (weight_ih, reversal.gate_gradient, tape.x[stretch.steps]),
                (weight_hh, reversal.hidden_gradient, tape.hidden[stretch.steps]),
            ):
                self._add(total, gradient[stretch.steps].flatten(0, 1), inputs.flatten(0, 1), stretch.columns)
        return showing((weight_ih, weight_hh), self._largest)

    def _add(self, total: Tensor, gradient: Tensor, inputs: Tensor, columns: Tensor) -> None:
        products = fastest_outer_columns(
            *gradient.shape, len(columns), inputs.shape[1], device=gradient.device, dtype=gradient.dtype
        )
        products.add_columns(total, gradient, inputs, columns)

    @cached_property
    def _largest(self) -> Tensor:
        """The largest |entry| that is left of each step, [k]."""
        return largest_entries(self.reversal.gate_gradient.flatten(1))

    def something_left(self) -> Tensor:
        return (self._largest != 0).to(torch.float64)

    def count(self, *, wants_x: bool) -> None:
        macs = Macs.of(self.layer, wants_x=wants_x)
        self.layer.tally.add_forward(macs.forward)
        self.count_columns(macs.backward, self.executed_ratio())
