"""Steps of a reversible layer as an ordinary differentiable function.

For `unroll`, which tapes, checkpoints and undoes segments as a plan says, and as the full BPTT that the
reversible path must equal: the same arithmetic, whose gates autograd keeps. How a segment is run, the engine
says through `executor.reversal`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from executor.errors import StateChanged
from executor.reversal import WORD_BYTES, Archiving, LostBits, Undoing, Watching, passage
from executor.reversible.archive import BLOCK_WORDS, Archive
from executor.reversible.cell import Parts
from executor.reversible.coders import bits_of_a_step
from executor.reversible.fixed_point import ONE
from executor.reversible.recipe import Recipe
from executor.reversible.sequence import State, start_moments
from executor.reversible.stack import LayerGrads, SegmentTape, Stack
from executor.reversible.trajectory import Moment, Trajectory, archives_for
from executor.rules.first_order import first_order
from executor.stages.parameters import gradient_sum
from executor.trees import leaf_description

PlainState = tuple[Any, ...]
"""Every register in fixed point, layer by layer, half by half; then their buffers in the same order; and with
coding="scheduled", the number of steps so far. Gradients flow through the registers."""


@dataclass(frozen=True)
class _Taped:
    """What the function is told beside tensors."""

    recipe: Recipe
    step: int
    masks: Sequence[Tensor]
    register_count: int
    buffer_count: int


def plain_start(recipe: Recipe, state: State) -> PlainState:
    """`state` in fixed point with empty buffers."""
    return _plain(recipe, start_moments(recipe, state))


def run_taped(
    recipe: Recipe, state: PlainState, x: Tensor, weights: Sequence[Tensor]
) -> tuple[PlainState, Tensor]:
    """Run the k steps of x [k, B, input]; the state after them and y [k, B, 2m].

    While the engine undoes the segment, `state` is the one after it, and the one before it goes to the
    passage. Raises StateChanged when `state` is not one of these layers.
    """
    counts = _counts(recipe)
    scheduled = recipe.coding == "scheduled"
    _require_state(state, sum(counts), scheduled=scheduled, weight=weights[1])
    how = passage()
    masks = recipe.masks(weights[1], steps=x.shape[0], batch_size=x.shape[1])
    step = int(state[-1]) if scheduled else 0
    if isinstance(how, Undoing):
        return _undone(_Taped(recipe, step - x.shape[0], masks, *counts), how, state, x, weights)
    taped = _Taped(recipe, step, masks, *counts)
    advanced = _Advanced(how if isinstance(how, Archiving) else None)
    tensors = state[: sum(counts)]
    y, *after = _TapedSegment.apply(taped, advanced, x, *tensors, *weights)  # type: ignore[no-untyped-call]
    returned = (*after, step + x.shape[0]) if scheduled else tuple(after)
    if isinstance(how, Watching):
        how.calls.append((state, returned, lost_bits(recipe, units=tensors[0].numel() * counts[0])))
    return returned, y


def _require_state(state: Any, count: int, *, scheduled: bool, weight: Tensor) -> None:
    """Kernels trust the sizes that they are given. Raises StateChanged unless `state` is one that layers of
    `weight` [2*g*m, m] return, of `count` tensors.
    """
    remedy = "start from initial_state(batch_size) or plain_state(state) of the same layers"
    if not isinstance(state, tuple | list) or len(state) != count + scheduled:
        given = f"{len(state)} parts" if isinstance(state, tuple | list) else f"a {type(state).__name__}"
        raise StateChanged(f"the state is {given}, not a tuple of {count + scheduled}: {remedy}")
    batch_size = len(state[0]) if isinstance(state[0], Tensor) and state[0].dim() else 0
    expected = ((batch_size, weight.shape[1]), torch.float64, weight.device)
    for index, part in enumerate(state[:count]):
        if leaf_description(part) != expected:
            given, needed = (" ".join(map(str, each)) for each in (leaf_description(part), expected))
            raise StateChanged(f"part {index} of the state is {given}; these layers need {needed}: {remedy}")


def lost_bits(recipe: Recipe, *, units: int) -> LostBits:
    """What a step loses at most; `units` are those of all registers and the batch."""
    block_bytes = recipe.num_layers * BLOCK_WORDS * WORD_BYTES
    return LostBits(bits_of_a_step(recipe.cell.forget_bits, recipe.coding), units, block_bytes)


def _undone(
    taped: _Taped, how: Undoing, state: PlainState, x: Tensor, weights: Sequence[Tensor]
) -> tuple[PlainState, Tensor]:
    """The segment with its graph, from the state after it; `how` receives the state before it."""
    recipe, count = taped.recipe, taped.register_count
    tensors = state[: count + taped.buffer_count]
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        trajectory = _trajectory(replace(taped, step=taped.step + x.shape[0]), tensors, weights, how.archives)
        tape = Stack.of(recipe.cell, weights).reverse(x.detach(), trajectory, taped.masks)
        before = _plain(recipe, [layer.moment(steps=-x.shape[0]) for layer in trajectory.layers])
    leaves = [part.requires_grad_() for part in before[:count]] + list(before[count : len(tensors)])
    how.before = (*leaves, *before[len(tensors) :])
    result = _Known(tape, [part.detach() for part in tensors])
    y, *after = _TapedSegment.apply(taped, result, x, *leaves, *weights)  # type: ignore[no-untyped-call]
    return (*after, *state[len(tensors) :]), y


@dataclass(frozen=True)
class _Advanced:
    """A segment whose tape and state after it come from advancing."""

    archiving: Archiving | None
    """Where the lost bits go: archives, one per layer, made here when there are none; None to forget them."""

    def compute(
        self, taped: _Taped, x: Tensor, tensors: Sequence[Tensor], weights: Sequence[Tensor]
    ) -> tuple[SegmentTape, Sequence[Tensor]]:
        """The tape, and the registers and buffers after the segment."""
        recipe = taped.recipe
        trajectory = _trajectory(taped, tensors, weights, self._archives(taped, tensors))
        with torch.autocast(x.device.type, enabled=False):
            tape = Stack.of(recipe.cell, weights).advance(x, trajectory, taped.masks)
        moments = [layer.moment(steps=x.shape[0]) for layer in trajectory.layers]
        return tape, _plain(recipe, moments)[: len(tensors)]

    def _archives(self, taped: _Taped, tensors: Sequence[Tensor]) -> list[Archive]:
        moments, how = _moments_of(taped, tensors), self.archiving
        if how is None:
            return archives_for(moments, reversible=False)
        if not how.archives:
            how.archives.extend(archives_for(moments, reversible=True, in_small_blocks=how.in_small_blocks))
        return how.archives


@dataclass(frozen=True)
class _Known:
    """A segment whose tape and state after it are known already."""

    tape: SegmentTape
    after: Sequence[Tensor]

    def compute(self, *_given: Any) -> tuple[SegmentTape, Sequence[Tensor]]:
        """See _Advanced."""
        return self.tape, self.after


class _TapedSegment(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, taped: _Taped, result: _Advanced | _Known, x: Tensor, *given: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        fixed, buffers, weights = _split(taped, given)
        tape, after = result.compute(taped, x, (*fixed, *buffers), weights)
        ctx.mark_non_differentiable(*after[taped.register_count :])
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(*weights)
            ctx.taped, ctx.tape = taped, tape
        # Not tape.y itself: it would refer to this node, which refers to the tape, and neither would go.
        return tape.y.detach(), *after

    @staticmethod
    @first_order("a reversible layer")
    def backward(ctx: Any, grad_y: Tensor | None, *grad_state: Tensor | None) -> tuple[Tensor | None, ...]:
        taped, tape, stack = ctx.taped, ctx.tape, Stack.of(ctx.taped.recipe.cell, ctx.saved_tensors)
        grads = _layer_grads(taped, grad_state[: taped.register_count], like=tape.y)
        grad_y = torch.zeros_like(tape.y) if grad_y is None else grad_y
        sums = [gradient_sum(weight) for weight in ctx.saved_tensors]
        with torch.autocast(tape.y.device.type, enabled=False):
            gradient = stack.backward(tape, grad_y, grads, [total for total, _ in sums])
            grad_x = stack.input_gradient(gradient, tape) if ctx.needs_input_grad[2] else None
        before = [part.double() / ONE for first, second in gradient.state for part in (*first, *second)]
        return None, None, grad_x, *before, *[None] * taped.buffer_count, *[made for _, made in sums]


def _trajectory(
    taped: _Taped, tensors: Sequence[Tensor], weights: Sequence[Tensor], archives: list[Archive]
) -> Trajectory:
    """The registers at `tensors`, with what goes to `archives` or comes from them."""
    recipe, moments = taped.recipe, _moments_of(taped, tensors)
    return Trajectory(recipe.cell, moments, dtype=weights[0].dtype, coding=recipe.coding, archives=archives)


def _counts(recipe: Recipe) -> tuple[int, int]:
    """Number of registers and of buffers."""
    registers = 2 * recipe.cell.register_count * recipe.num_layers
    return registers, 0 if recipe.cell.forget_bits is None else registers


def _plain(recipe: Recipe, moments: Sequence[Moment]) -> PlainState:
    fixed = [part for moment in moments for half in moment.fixed for part in half]
    buffers = [part for moment in moments for half in moment.buffers for part in half]
    return (*fixed, *buffers, moments[0].step) if recipe.coding == "scheduled" else (*fixed, *buffers)


def _split(taped: _Taped, tensors: Sequence[Tensor]) -> tuple[Sequence[Tensor], ...]:
    first, second = taped.register_count, taped.register_count + taped.buffer_count
    return tensors[:first], tensors[first:second], tensors[second:]


def _moments_of(taped: _Taped, tensors: Sequence[Tensor]) -> list[Moment]:
    count = taped.register_count
    halves, rest = _halves(taped, tensors[:count]), _halves(taped, tensors[count:])
    return [Moment(*parts, taped.step) for parts in zip(halves, rest, strict=True)]


def _halves(taped: _Taped, parts: Sequence[Tensor]) -> list[tuple[Parts, Parts]]:
    count = taped.recipe.cell.register_count if parts else 0
    split = []
    for layer in range(taped.recipe.num_layers):
        start = 2 * count * layer
        split.append((tuple(parts[start : start + count]), tuple(parts[start + count : start + 2 * count])))
    return split


def layers_of_state(
    state: Sequence[Any], *, registers: int, layers: int
) -> list[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """The registers of a plain state, layer by layer and half by half."""
    split = []
    for start in range(0, 2 * registers * layers, 2 * registers):
        middle = start + registers
        split.append((tuple(state[start:middle]), tuple(state[middle : middle + registers])))
    return split


def _layer_grads(taped: _Taped, grads: Sequence[Tensor | None], *, like: Tensor) -> list[LayerGrads]:
    batch, units = like.shape[1], like.shape[2] // 2
    floats = [
        like.new_zeros(batch, units) if grad is None else grad.mul(ONE).to(like.dtype) for grad in grads
    ]
    return _halves(taped, floats)
