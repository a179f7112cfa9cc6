"""The way back of one layer over a segment: gate gradients, and the products that take them.

`BackwardPass` drops nothing and multiplies densely; a rule brings a subclass that does otherwise. With
N = k * B rows, the products and their MACs are

    flow      dh_{t-1} = dnet_t U      N x GH x H
    weights   dU += dnet_t^T h_{t-1}   N x GH x H      dW += dnet_t^T x_t   N x GH x input
    inputs    dx_t = dnet_t W          N x GH x input
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from executor.sparse.accounting import Tally
from executor.sparse.cell import Reversal, State
from executor.sparse.repeated import Product, repeated_linear
from executor.torch_weights import TorchWeights


class Layer(NamedTuple):
    """One layer's segment on its way back, and where its counts go."""

    reversal: Reversal
    weights: TorchWeights
    tally: Tally
    gate_count: int


class Gradients(NamedTuple):
    """What a way back yields."""

    x: Tensor | None
    weights: TorchWeights
    state: State


class BackwardPass:
    """A dense way back, and the base of the others."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.reversal = layer.reversal
        self.weights = layer.weights
        self.steps, self.batch, _ = layer.reversal.gate_gradient.shape
        self.undropped: Tensor | None = None
        """Where to copy the gate gradient before anything is dropped, [k, B, G*H]."""
        self._product: Product | None = None

    def run(self, grad_y: Tensor, *, wants_x: bool) -> Gradients:
        """All gradients, given that of y [k, B, H]; that of x is left out unless it is wanted."""
        reversal = self.reversal
        for step in reversed(range(self.steps)):
            reversal.fill(step, grad_y[step] + reversal.grad_h)
            if self.undropped is not None:
                self.undropped[step] = reversal.gate_gradient[step]
            self.drop(step)
            reversal.through(step, self.flow(step, reversal.hidden_side(step)))
        weight_ih, weight_hh = self.weight_gradients()
        grad_x = self.input_gradient() if wants_x else None
        self.count(wants_x=wants_x)
        biases = bias_gradients(reversal, self.weights)
        return Gradients(grad_x, TorchWeights(weight_ih, weight_hh, *biases), reversal.grad_state())

    def drop(self, step: int) -> None:
        """Set to zero, in place, what the rule drops of the gate gradient of `step`."""

    def flow(self, step: int, hidden: Tensor) -> Tensor:
        """Gradient of h before `step` [B, H] from the gate gradient on its side [B, G*H]."""
        if self._product is None:
            transposed = self.weights.weight_hh.t()
            self._product = repeated_linear(transposed, None, rows=self.batch, steps=self.steps)
        return self._product(hidden)

    def weight_gradients(self) -> tuple[Tensor, Tensor]:
        """Gradients of W [G*H, input] and U [G*H, H]."""
        return weight_products(self.reversal)

    def input_gradient(self) -> Tensor:
        """Gradient of x [k, B, input]."""
        gradient = self.reversal.gate_gradient.flatten(0, 1)
        return torch.mm(gradient, self.weights.weight_ih).view_as(self.reversal.tape.x)

    def count(self, *, wants_x: bool) -> None:
        """Count what ran: dense products over whatever entries are not zero."""
        macs = Macs.of(self.layer, wants_x=wants_x)
        kept = self.kept_entries()
        self.layer.tally.add_forward(macs.forward)
        self.layer.tally.add_product(dense_macs=macs.backward, executed_macs=macs.backward, kept_ratios=kept)

    def kept_entries(self) -> Tensor:
        """Share of entries that are not zero, per gate [G]."""
        # Gate by gate: over some dimensions only, torch counts in copies of eight bytes an entry.
        gates = self.reversal.gate_gradient.chunk(self.layer.gate_count, dim=2)
        return torch.stack([gate.count_nonzero() for gate in gates]).double() / gates[0].numel()


class Macs(NamedTuple):
    """MACs of a dense segment of one layer."""

    forward: int
    flow: int
    weights: int
    inputs: int

    @classmethod
    def of(cls, layer: Layer, *, wants_x: bool) -> Macs:
        """Those of `layer`."""
        rows_by_gates = layer.reversal.gate_gradient.numel()
        features, units = layer.weights.weight_ih.shape[1], layer.weights.weight_hh.shape[1]
        both = rows_by_gates * (features + units)
        return cls(both, rows_by_gates * units, both, rows_by_gates * features if wants_x else 0)

    @property
    def backward(self) -> int:
        """All of the way back."""
        return self.flow + self.weights + self.inputs


def weight_products(reversal: Reversal) -> tuple[Tensor, Tensor]:
    """Gradients of W and U from all gate gradients of a segment, densely."""
    tape, hidden = reversal.tape, reversal.hidden_gradient
    weight_ih = torch.mm(reversal.gate_gradient.flatten(0, 1).t(), tape.x.flatten(0, 1))
    weight_hh = torch.mm(hidden.flatten(0, 1).t(), tape.hidden[:-1].flatten(0, 1))
    return weight_ih, weight_hh


def bias_gradients(reversal: Reversal, weights: TorchWeights) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of both biases [G*H], where the layer has them."""
    if weights.bias_ih is None:
        return None, None
    bias_ih = reversal.gate_gradient.flatten(0, 1).sum(0)
    if reversal.hidden_gradient is reversal.gate_gradient:
        return bias_ih, bias_ih.clone()
    return bias_ih, reversal.hidden_gradient.flatten(0, 1).sum(0)
