"""One reversible layer over a segment: forward, reversed, and the gradient from the tape of the reversal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from executor.reversible.cell import Cell, HalfTape, Parts
from executor.reversible.register import Register

StepTape = tuple[HalfTape, HalfTape]
Halves = tuple[tuple[Register, ...], tuple[Register, ...]]
"""Registers of both halves."""


class ReversibleWeights(NamedTuple):
    """Weights of a layer, or their gradients; the first half of the rows is that of the first half of the
    state.
    """

    weight_ih: Tensor
    """[2*g*m, input]"""
    weight_hh: Tensor
    """[2*g*m, m]"""
    bias: Tensor
    """[2*g*m]"""


@dataclass(frozen=True)
class Layer:
    """A cell with its weights. x is [k, B, input], y [k, B, 2m], for a segment of k steps."""

    cell: Cell
    weights: ReversibleWeights

    def advance(self, x: Tensor, halves: Halves) -> tuple[Tensor, list[StepTape]]:
        """Run the steps; y and what the gradient needs."""
        tapes = [self._advance_step(pre, halves) for pre in self._contributions(x)]
        return _outputs(tapes), tapes

    def reverse(self, x: Tensor, halves: Halves) -> tuple[Tensor, list[StepTape]]:
        """Undo `advance` on the same x: the same y and tapes, computed from the last step to the first."""
        backwards = [self._reverse_step(pre, halves) for pre in reversed(self._contributions(x))]
        tapes = backwards[::-1]
        return _outputs(tapes), tapes

    def backward(
        self,
        x: Tensor,
        tapes: Sequence[StepTape],
        grad_y: Tensor,
        grads: tuple[Parts, Parts],
        totals: ReversibleWeights,
    ) -> tuple[Tensor, tuple[Parts, Parts]]:
        """Gradients of the gates' inputs [k * B, 2*g*m] and of the state before the segment.

        `grads` are those of the state after it, beyond what comes through y. The weights' gradients are
        added to `totals`.
        """
        steps, batch = grad_y.shape[:2]
        grad_pre = grad_y.new_empty(steps, batch, len(self.weights.bias))
        for step in reversed(range(steps)):
            first, second = (
                _plus(half, part) for half, part in zip(grads, grad_y[step].chunk(2, dim=1), strict=True)
            )
            grads = self._backward_step(tapes[step], first, second, grad_pre[step])
        flat = grad_pre.view(steps * batch, -1)
        self._add_weight_gradients(x, tapes, flat, totals)
        return flat, grads

    def input_gradient(self, grad_pre: Tensor, x: Tensor) -> Tensor:
        """Gradient of x from that of the gates' inputs, as `backward` returned it."""
        return torch.mm(grad_pre, self.weights.weight_ih).view_as(x)

    def _contributions(self, x: Tensor) -> Sequence[Tensor]:
        flat = torch.addmm(self.weights.bias, x.reshape(-1, x.shape[2]), self.weights.weight_ih.t())
        return flat.view(*x.shape[:2], -1).unbind(0)

    @cached_property
    def _half_weights(self) -> tuple[Tensor, Tensor]:
        first, second = self.weights.weight_hh.chunk(2)
        return first, second

    def _advance_step(self, pre: Tensor, halves: Halves) -> StepTape:
        pres, weights = pre.chunk(2, dim=1), self._half_weights
        first = self._advance_half(pres[0], weights[0], halves[0], halves[1][-1].value)
        return first, self._advance_half(pres[1], weights[1], halves[1], halves[0][-1].value)

    def _advance_half(
        self, pre: Tensor, weight: Tensor, registers: Sequence[Register], other: Tensor
    ) -> HalfTape:
        gates = self.cell.gates(pre, other, weight)
        before = _values(registers)
        self.cell.advance(gates, registers)
        return HalfTape(other, before, _values(registers), gates)

    def _reverse_step(self, pre: Tensor, halves: Halves) -> StepTape:
        pres, weights = pre.chunk(2, dim=1), self._half_weights
        second = self._reverse_half(pres[1], weights[1], halves[1], halves[0][-1].value)
        return self._reverse_half(pres[0], weights[0], halves[0], halves[1][-1].value), second

    def _reverse_half(
        self, pre: Tensor, weight: Tensor, registers: Sequence[Register], other: Tensor
    ) -> HalfTape:
        gates = self.cell.gates(pre, other, weight)
        after = _values(registers)
        self.cell.reverse(gates, registers)
        return HalfTape(other, _values(registers), after, gates)

    def _backward_step(
        self, tapes: StepTape, first: Parts, second: Parts, grad_pre: Tensor
    ) -> tuple[Parts, Parts]:
        pres, weights = grad_pre.chunk(2, dim=1), self._half_weights
        after = self.cell.backward(tapes[1], second, weights[1], pres[1])
        before = self.cell.backward(tapes[0], _plus(first, after.other), weights[0], pres[0])
        return before.before, _plus(after.before, before.other)

    def _add_weight_gradients(
        self, x: Tensor, tapes: Sequence[StepTape], grad_pre: Tensor, totals: ReversibleWeights
    ) -> None:
        halves = zip(grad_pre.chunk(2, dim=1), totals.weight_hh.chunk(2), strict=True)
        for half, (grad_half, total) in enumerate(halves):
            self.cell.add_weight_gradient([tape[half] for tape in tapes], grad_half, total)
        totals.weight_ih.add_(grad_pre.t() @ x.reshape(-1, x.shape[2]))
        totals.bias.add_(grad_pre.sum(0))


def _values(registers: Sequence[Register]) -> Parts:
    return tuple(register.value for register in registers)


def _plus(parts: Parts, grad: Tensor) -> Parts:
    """`parts` with the gradient of h, the last of them, increased."""
    return (*parts[:-1], parts[-1] + grad)


def _outputs(tapes: Sequence[StepTape]) -> Tensor:
    first = torch.stack([tape[0].after[-1] for tape in tapes])
    return torch.cat([first, torch.stack([tape[1].after[-1] for tape in tapes])], dim=2)
