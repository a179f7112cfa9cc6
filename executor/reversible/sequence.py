"""A whole sequence as one autograd function: forward keeps no hidden state, backward reverses it.

Source: MacKay et al. (2018), arXiv:1810.10999, section 3. Unlike there, the gates that reverse a step are its
tape as well, so that the way back computes them once, not twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from executor.errors import DoubleBackward, ModifiedBetweenPasses
from executor.reversal import note_archived
from executor.reversible.cell import Parts
from executor.reversible.errors import InvalidReversible
from executor.reversible.fixed_point import FRACTION_BITS, to_fixed
from executor.reversible.made import Made, require_addable, require_stackable
from executor.reversible.outer import Outer, OuterTape
from executor.reversible.recipe import Recipe
from executor.reversible.rewinding import Rewinding
from executor.reversible.stack import LayerGrads, Stack
from executor.reversible.trajectory import Moment, Trajectory, archives_for, start_moment
from executor.rules.first_order import first_order
from executor.stages.live_tape import added
from executor.trees import versions_of

LARGEST_STATE = 2.0**27
"""A state grows by at most 1 a step: initial value plus steps must stay below this, so that it is exact."""
State = tuple[Tensor, ...]
"""(h,) of a RevGRU, (h, c) of a RevLSTM: [layers, B, 2m] each, as torch orders them."""


@dataclass(frozen=True)
class Pass:
    """One use of the layers on one sequence."""

    recipe: Recipe
    before: Outer
    after: Outer
    """A module from (y, targets) of a segment to a number; or when stacked, from y to what is kept of it."""
    targets: Any
    stacked: bool
    """What `after` makes of the segments is put together along time, not added up."""
    reversible: bool
    """False where no gradient will be asked for: nothing is archived."""
    archived: list[int]
    """Receives the archived bytes."""
    rewinding: Rewinding
    """Of what `before` and `after` find around them."""
    made: Made
    """By `after`, of each segment."""

    def split(self, tensors: Sequence[Tensor]) -> tuple[State, list[Tensor], list[Tensor], list[Tensor]]:
        """The state, the layers' parameters, and those of `before` and `after`, from one flat list."""
        ends = [self.recipe.cell.register_count, 3 * self.recipe.num_layers, len(self.before.parameters)]
        parts: list[list[Tensor]] = []
        start = 0
        for end in ends:
            parts.append(list(tensors[start : start + end]))
            start += end
        return tuple(parts[0]), parts[1], parts[2], list(tensors[start:])


class ReversibleSequence(torch.autograd.Function):
    """See the module. Returns the outputs (or the sum of `after`) and the last state."""

    @staticmethod
    def forward(ctx: Any, work: Pass, inputs: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Run the segments in order."""
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(inputs, *tensors)
        state, weights, _, _ = work.split(tensors)
        trajectory = start_trajectory(work.recipe, state, weights, len(inputs), reversible=work.reversible)
        outputs = _advance(work, inputs, tensors, trajectory)
        work.rewinding.remember()
        work.archived[:] = [trajectory.archived_bytes]
        note_archived(trajectory.archived_bytes)
        ctx.work, ctx.trajectory = work, trajectory
        ctx.target_versions = versions_of((work.targets,))
        return outputs, *join_state([layer.values() for layer in trajectory.layers])

    @staticmethod
    @first_order("a reversible layer")
    def backward(ctx: Any, grad_outputs: Tensor | None, *grad_state: Tensor | None) -> tuple[Any, ...]:
        """Reverse the segments from the last to the first."""
        trajectory, ctx.trajectory = ctx.trajectory, None
        if trajectory is None:
            raise DoubleBackward("the sequence was reversed by the first backward: run it forward again")
        inputs, *tensors = ctx.saved_tensors  # autograd refuses those that were changed in place
        if ctx.target_versions != versions_of((ctx.work.targets,)):
            raise ModifiedBetweenPasses(
                "the targets were changed in place between forward and backward: the loss of each segment is "
                "computed again and would read other values; pass a clone"
            )
        way_back = _WayBack(ctx.work, inputs, tensors, trajectory, needs=ctx.needs_input_grad)
        with ctx.work.rewinding.recomputing(), torch.autocast(inputs.device.type, enabled=False):
            return None, *way_back.run(grad_outputs, grad_state)


def _advance(work: Pass, inputs: Tensor, tensors: Sequence[Tensor], trajectory: Trajectory) -> Tensor:
    outputs: Tensor | None = None
    for index, segment in enumerate(work.recipe.segments(len(inputs))):
        with (
            work.rewinding.advancing(),
            work.recipe.replayed(segment, inputs.device),
            torch.autocast(inputs.device.type, enabled=False),
        ):
            result = _advance_segment(work, segment, inputs, tensors, trajectory)
        if work.reversible and work.after.module is not None:
            work.made.note(index, result)
        if work.stacked:
            require_stackable(result, segment.stop - segment.start)
            outputs = result.new_empty(len(inputs), *result.shape[1:]) if outputs is None else outputs
            outputs[segment] = result
        elif outputs is None:
            outputs = result
        else:
            require_addable(result, outputs)
            outputs = outputs + result
    assert outputs is not None  # noqa: S101 - a sequence has at least one step
    return outputs


def _advance_segment(
    work: Pass, segment: slice, inputs: Tensor, tensors: Sequence[Tensor], trajectory: Trajectory
) -> Tensor:
    """What `after` makes of the segment. In the first one both modules are held to what they declare, in the
    others on the way back, where they have tapes.
    """
    _, weights, before, after = work.split(tensors)
    run = Outer.run_declared if work.reversible and not segment.start else Outer.run
    masks = work.recipe.masks(weights[1], steps=segment.stop - segment.start, batch_size=inputs.shape[1])
    x = run(work.before, before, inputs[segment])
    y = Stack.of(work.recipe.cell, weights).advance(x, trajectory, masks).y
    return run(work.after, after, *((y,) if work.stacked else (y, work.targets[segment])))


class _WayBack:
    """The backward pass: gradients accumulate while the trajectory goes back."""

    def __init__(
        self,
        work: Pass,
        inputs: Tensor,
        tensors: Sequence[Tensor],
        trajectory: Trajectory,
        *,
        needs: Sequence[bool],
    ) -> None:
        self._work, self._inputs, self._trajectory = work, inputs, trajectory
        self._state, self._weights, self._before, self._after = work.split(tensors)
        self._stack = Stack.of(work.recipe.cell, self._weights)
        self._grads: list[Tensor | None] = [None] * len(tensors)
        self._grad_inputs = torch.zeros_like(inputs) if needs[1] else None
        self._weight_totals = [torch.zeros_like(weight) for weight in self._weights]
        start = len(self._state)
        self._grads[start : start + len(self._weights)] = self._weight_totals
        self._needs_x = needs[1] or any(part.requires_grad for part in self._before)

    def run(
        self, grad_outputs: Tensor | None, grad_state: Sequence[Tensor | None]
    ) -> tuple[Tensor | None, ...]:
        """Gradients of the inputs and of all tensors."""
        grads = split_gradients(grad_state, self._state, layers=self._work.recipe.num_layers)
        for segment in reversed(self._work.recipe.segments(len(self._inputs))):
            with self._work.recipe.replayed(segment, self._inputs.device):
                self._work.rewinding.rewind()
                grads = self._segment(segment, grad_outputs, grads)
        self._trajectory.check_at_start(start_moments(self._work.recipe, self._state))
        if grad_outputs is not None:  # else nothing was made of the outputs again
            self._work.made.check()
        joined = join_state(grads)
        self._grads[: len(joined)] = joined
        return self._grad_inputs, *self._grads

    def _segment(
        self, segment: slice, grad_outputs: Tensor | None, grads: list[LayerGrads]
    ) -> list[LayerGrads]:
        recipe, inputs = self._work.recipe, self._inputs[segment]
        masks = recipe.masks(self._weights[1], steps=len(inputs), batch_size=inputs.shape[1])
        taped = OuterTape(self._work.before, self._before, inputs)
        taped.require_no_captures()  # a segment may use what the first one did not
        tape = self._stack.reverse(taped.result.detach(), self._trajectory, masks)
        grad_y = self._output_gradient(segment, tape.y, grad_outputs)
        gradient = self._stack.backward(tape, grad_y, grads, self._weight_totals)
        if self._needs_x:
            grad_inputs, own = taped.backward(self._stack.input_gradient(gradient, tape))
            self._add(len(self._state) + len(self._weights), own)
            if self._grad_inputs is not None and grad_inputs is not None:
                self._grad_inputs[segment] = grad_inputs
        return gradient.state

    def _output_gradient(self, segment: slice, y: Tensor, grad_outputs: Tensor | None) -> Tensor:
        if grad_outputs is None:
            return torch.zeros_like(y)
        stacked, targets = self._work.stacked, self._work.targets
        arguments = (y,) if stacked else (y, targets[segment])
        taped = OuterTape(self._work.after, self._after, *arguments)
        taped.require_no_captures()
        if self._work.after.module is not None:
            self._work.made.note_again(segment.start // self._work.recipe.segment_steps, taped.result)
        grad_y, own = taped.backward(grad_outputs[segment] if stacked else grad_outputs)
        self._add(len(self._grads) - len(self._after), own)
        return torch.zeros_like(y) if grad_y is None else grad_y

    def _add(self, start: int, grads: Sequence[Tensor | None]) -> None:
        """Add those of a segment. Totals are memory of their own: autograd gives the same tensor to all
        that were added up.
        """
        for index, grad in enumerate(grads, start):
            self._grads[index] = added(self._grads[index], grad)


def start_trajectory(
    recipe: Recipe, state: State, weights: Sequence[Tensor], steps: int, *, reversible: bool
) -> Trajectory:
    """The registers of all layers at `state`. Raises InvalidReversible when they could grow too large."""
    check_range(state, steps)
    moments = start_moments(recipe, state)
    dtype = weights[0].dtype
    archives = archives_for(moments, reversible=reversible)
    return Trajectory(recipe.cell, moments, dtype=dtype, coding=recipe.coding, archives=archives)


def check_range(state: State, steps: int) -> None:
    """Raises InvalidReversible when `steps` steps could take `state` out of the range of exact integers."""
    for part in state:
        largest = float(part.detach().abs().max()) if part.numel() else 0.0
        if not largest + steps < LARGEST_STATE:  # NaN fails every comparison
            reach = f"could reach {largest + steps} in {steps} steps" if steps else "is too large"
            raise InvalidReversible(
                f"a state of up to {largest} {reach}: fixed point with {FRACTION_BITS} fractional bits is "
                f"exact below {LARGEST_STATE:.0f}; start from a smaller, finite state"
            )


def start_moments(recipe: Recipe, state: State) -> list[Moment]:
    """The state in fixed point with empty buffers, layer by layer."""
    return [
        start_moment(recipe.cell, halves, recipe.coding)
        for halves in halves_of([to_fixed(part) for part in state], layers=recipe.num_layers)
    ]


def halves_of(state: Sequence[Tensor], *, layers: int) -> list[tuple[Parts, Parts]]:
    """Halves of each layer, h last in each: the reverse of the order in which torch lists h and c."""
    units = state[0].shape[2] // 2
    split = []
    for layer in range(layers):
        parts = [part[layer] for part in reversed(state)]
        first = tuple(part[:, :units].contiguous() for part in parts)
        split.append((first, tuple(part[:, units:].contiguous() for part in parts)))
    return split


def split_gradients(
    grads: Sequence[Tensor | None], state: State, *, layers: int
) -> list[tuple[Parts, Parts]]:
    """Gradients of the last state as the layers take them; zeros for what is not used."""
    filled = [
        torch.zeros_like(part) if grad is None else grad for grad, part in zip(grads, state, strict=True)
    ]
    return halves_of(filled, layers=layers)


def join_state(layers: Sequence[tuple[Parts, Parts]]) -> State:
    """(h,) or (h, c) of all layers from their halves."""
    joined = [
        torch.stack([torch.cat(parts, dim=1) for parts in part_of_layers])
        for part_of_layers in zip(
            *[list(zip(first, second, strict=True)) for first, second in layers], strict=True
        )
    ]
    return tuple(reversed(joined))
