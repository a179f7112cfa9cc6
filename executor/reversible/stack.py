"""Reversible layers on top of each other, over a segment: forward, reversed, and the gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from executor.errors import OTHER_GATES
from executor.reversible.cell import Cell, Parts
from executor.reversible.errors import ReversalMismatch
from executor.reversible.layer import Halves, Layer, ReversibleWeights, StepTape
from executor.reversible.trajectory import Trajectory

LayerGrads = tuple[Parts, Parts]
"""Gradients of the registers of a layer's halves, as floats [B, m]."""


class LayerTape(NamedTuple):
    """What the gradient of one layer over a segment needs."""

    x: Tensor
    steps: list[StepTape]


class SegmentTape(NamedTuple):
    """What the gradient of a segment needs, and its outputs y [k, B, 2m]."""

    layers: list[LayerTape]
    masks: Sequence[Tensor]
    y: Tensor


class SegmentGradient(NamedTuple):
    """Gradients of a segment."""

    pre: Tensor
    """Of what the input contributes to the first layer's gates, [k * B, 2*g*m]."""
    state: list[LayerGrads]
    """Of the state before the segment."""


@dataclass(frozen=True)
class Stack:
    """The layers, lowest first."""

    layers: Sequence[Layer]

    @classmethod
    def of(cls, cell: Cell, parameters: Sequence[Tensor]) -> Stack:
        """Layers of `cell`; parameters are weight_ih, weight_hh, bias, layer by layer."""
        return cls([Layer(cell, triple) for triple in _by_layer(parameters)])

    def advance(self, x: Tensor, trajectory: Trajectory, masks: Sequence[Tensor]) -> SegmentTape:
        """Run the k steps of x [k, B, input] and take the trajectory with them."""
        return self._run(Layer.advance, x, trajectory, masks)

    def reverse(self, x: Tensor, trajectory: Trajectory, masks: Sequence[Tensor]) -> SegmentTape:
        """Undo `advance` on the same x; the same tape, the trajectory back before the segment.

        Raises ReversalMismatch when it asks for more bits than were archived.
        """
        try:
            return self._run(Layer.reverse, x, trajectory, masks)
        except IndexError as error:
            raise ReversalMismatch(
                f"undoing asked for bits that were never archived ({error}): {OTHER_GATES}; "
                "no gradient is given"
            ) from error

    def _run(
        self,
        run_layer: Callable[[Layer, Tensor, Halves], tuple[Tensor, list[StepTape]]],
        x: Tensor,
        trajectory: Trajectory,
        masks: Sequence[Tensor],
    ) -> SegmentTape:
        tapes: list[LayerTape] = []
        for index, (layer, registers) in enumerate(zip(self.layers, trajectory.layers, strict=True)):
            if index and masks:
                x = x * masks[index - 1]
            trajectory.check(x, layer.weights.weight_ih)
            y, steps = run_layer(layer, x, registers.halves)
            tapes.append(LayerTape(x, steps))
            x = y
        return SegmentTape(tapes, masks, x)

    def backward(
        self, tape: SegmentTape, grad_y: Tensor, grads: Sequence[LayerGrads], totals: Sequence[Tensor]
    ) -> SegmentGradient:
        """Gradients of a segment from that of its outputs and of the state after it; those of the parameters
        are added to `totals`, which are in their order.
        """
        state: list[LayerGrads] = []
        grad_pre, sums = grad_y, _by_layer(totals)
        for index in reversed(range(len(self.layers))):
            layer, (x, steps) = self.layers[index], tape.layers[index]
            grad_pre, before = layer.backward(x, steps, grad_y, grads[index], sums[index])
            state = [before, *state]
            if index:
                grad_y = layer.input_gradient(grad_pre, x)
                grad_y = grad_y * tape.masks[index - 1] if tape.masks else grad_y
        return SegmentGradient(grad_pre, state)

    def input_gradient(self, gradient: SegmentGradient, tape: SegmentTape) -> Tensor:
        """Gradient of the x of a segment."""
        return self.layers[0].input_gradient(gradient.pre, tape.layers[0].x)


def _by_layer(parameters: Sequence[Tensor]) -> list[ReversibleWeights]:
    """weight_ih, weight_hh, bias of each layer."""
    return [ReversibleWeights(*parameters[start : start + 3]) for start in range(0, len(parameters), 3)]
