"""What a recurrent cell must be able to do: run k steps, and turn gradients of h into gate gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from executor.torch_weights import TorchWeights

State = tuple[Tensor, ...]
"""(h, c) of an LSTM, (h,) of a GRU; each [B, H]."""


class Tape(NamedTuple):
    """What k steps leave for the way back."""

    x: Tensor
    """[k, B, input]"""
    hidden: Tensor
    """h before the first step and after each, [k + 1, B, H]."""
    parts: tuple[Tensor, ...]
    """Whatever else the cell keeps."""


class Reversal(ABC):
    """The way back through a tape, last step first, one step at a time: `fill`, `hidden_side`, `through`."""

    def __init__(self, tape: Tape, grad_after: State, gate_count: int) -> None:
        steps, batch, _ = tape.x.shape
        self.tape = tape
        self.gate_gradient = tape.hidden.new_empty(steps, batch, gate_count * tape.hidden.shape[2])
        """Gradient of what enters the gates from x, [k, B, G*H]: what rules drop from, in place."""
        self.hidden_gradient = self.gate_gradient
        """Gradient of what enters the gates from h, [k, B, G*H]."""
        self.grad_h = grad_after[0]
        """Gradient of h after the step that comes next, beyond what comes through y."""

    @abstractmethod
    def fill(self, step: int, grad_h: Tensor) -> None:
        """Write the gate gradient of `step`, given the whole gradient of its h."""

    @abstractmethod
    def through(self, step: int, grad_gates: Tensor) -> None:
        """Go on to the step before: `grad_gates` is the part of its h's gradient that came by the gates."""

    def hidden_side(self, step: int) -> Tensor:
        """The gate gradient of `step` as it enters the product with U, after a rule has dropped from it."""
        return self.hidden_gradient[step]

    @abstractmethod
    def grad_state(self) -> State:
        """Gradient of the state before the segment."""


class Cell(ABC):
    """One kind of cell. Stateless."""

    gate_names: ClassVar[tuple[str, ...]]
    """In the order of torch's weights."""
    state_names: ClassVar[tuple[str, ...]]

    @abstractmethod
    def advance(self, x: Tensor, state: State, weights: TorchWeights) -> tuple[Tape, State]:
        """Run the k steps of x from `state`; the tape, and the state after them."""

    @abstractmethod
    def reversal(self, tape: Tape, grad_after: State) -> Reversal:
        """The way back; `grad_after` is the gradient of the state after the segment."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Of x [N, input] and a weight [G*H, input], the product x W^T plus the bias: [N, G*H]."""
    return torch.mm(x, weight.t()) if bias is None else torch.addmm(bias, x, weight.t())


def input_side(x: Tensor, weights: TorchWeights) -> Tensor:
    """What enters the gates from all x of a segment, in one product: [k, B, G*H]."""
    return linear(x.flatten(0, 1), weights.weight_ih, weights.bias_ih).view(*x.shape[:2], -1)


def room_after(first: Tensor, steps: int) -> Tensor:
    """A sequence [steps + 1, B, H] that begins with `first` and is still to be filled."""
    sequence = first.new_empty(steps + 1, *first.shape)
    sequence[0] = first
    return sequence
