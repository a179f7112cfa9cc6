"""The gradients of one run, those of parameters aside: what comes in, the live state's, and what goes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from executor.errors import PlanMismatch
from executor.stages.live_tape import LiveTape, owned_gradient, wants_gradient
from executor.stages.program import Program


class Gradients:
    """Backward goes from the last state to the first; the gradient of one state is live at a time.

    Those of parameters are kept by their shadows (`executor.stages.parameters`).
    """

    def __init__(self, program: Program, captured: int) -> None:
        self._program = program
        self.outputs: list[Tensor | None] = []
        """Of the reduced outputs, as the caller hands them in."""
        self.state: list[Tensor | None] = []
        """Of the leaves of x_at."""
        self.at = program.length
        """Whose gradient is live."""
        self._inputs: dict[int, Tensor] = {}
        """Of all steps' inputs, by the positions of the leaves that need one."""
        self.captured: list[Tensor | None] = [None] * captured
        """Totals of the captured tensors."""

    def come_in(self, outputs: Sequence[Tensor | None], state: Sequence[Tensor | None]) -> None:
        """Begin with the gradients of the reduced outputs and of the final state."""
        self.outputs = list(outputs)
        self.state = list(state)
        if not self._inputs:
            self.prepare_inputs()

    def prepare_inputs(self) -> None:
        """Allocate the gradients of the inputs."""
        for position in self._program.inputs.differentiable:
            leaf = self._program.inputs.leaves[position]
            self._inputs[position] = torch.zeros_like(leaf, requires_grad=False)

    def require_at(self, index: int) -> None:
        """Raise PlanMismatch where the gradient of another state than x_index is live."""
        if index != self.at:
            raise PlanMismatch(f"the gradient of x_{index} is not live: that of x_{self.at} is")

    def roots(self, tape: LiveTape) -> tuple[list[Any], list[Tensor]]:
        """Where the graph of the tape is entered, and with which gradients."""
        rows: Sequence[Sequence[Tensor | None]] = ()
        if tape.blocks and tape.blocks[0]:
            steps = self._program.steps_of(tape.stage)
            rows = self._program.outputs.gradients(*steps, self.outputs)
        return tape.roots(self.state, rows)

    def take(self, tape: LiveTape) -> None:
        """Take what autograd left in the leaves of a tape that was reversed: the gradient of the state before
        it, which is live from now on, and those of its inputs.
        """
        self.state = [
            owned_gradient(leaf.grad) if wants_gradient(leaf) else None for leaf in tape.state_leaves
        ]
        for position in self._program.inputs.differentiable:
            gradient = tape.slices[position].grad
            if gradient is not None:
                of_steps = self._inputs[position].narrow(0, *self._program.steps_of(tape.stage))
                of_steps.copy_(gradient)
        self.at = tape.stage - 1

    def of_state(self) -> list[Tensor | None]:
        """Of the initial state's leaves; handed over."""
        gradient, self.state = self.state, []
        return gradient

    def of_inputs(self) -> list[Tensor | None]:
        """Of the inputs that need one, in the order of `Inputs.differentiable`; handed over."""
        gradients, self._inputs = self._inputs, {}
        return [gradients.get(position) for position in self._program.inputs.differentiable]

    def of_captured(self) -> list[Tensor | None]:
        """Of the captured tensors; handed over."""
        gradients, self.captured = self.captured, []
        return gradients
