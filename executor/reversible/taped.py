"""Steps of a reversible layer as an ordinary differentiable function: with a tape, without reversal.

For `unroll`, which checkpoints any step, and as the full BPTT that the reversible path must equal: the same
arithmetic, whose gates autograd keeps instead of computing them again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from executor.errors import StateChanged
from executor.reversible.cell import Parts
from executor.reversible.fixed_point import ONE
from executor.reversible.recipe import Recipe
from executor.reversible.sequence import State, start_moments
from executor.reversible.stack import LayerGrads, Stack
from executor.reversible.trajectory import Moment, Trajectory

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

    Raises StateChanged when `state` is not one of these layers.
    """
    counts = _counts(recipe)
    tensors = state[: sum(counts)]
    scheduled = recipe.coding == "scheduled"
    if len(state) != sum(counts) + scheduled:
        raise StateChanged(f"the state has {len(state)} parts, not {sum(counts) + scheduled}")
    masks = recipe.masks(weights[1], steps=x.shape[0], batch_size=x.shape[1])
    step = int(state[-1]) if scheduled else 0
    taped = _Taped(recipe, step, masks, *counts)
    y, *after = _TapedSegment.apply(taped, x, *tensors, *weights)  # type: ignore[no-untyped-call]
    return (*after, step + x.shape[0]) if scheduled else tuple(after), y


class _TapedSegment(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, taped: _Taped, x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        recipe, (fixed, buffers, weights) = taped.recipe, _split(taped, tensors)
        trajectory = Trajectory(
            recipe.cell,
            _moments(taped, fixed, buffers),
            dtype=weights[0].dtype,
            coding=recipe.coding,
            reversible=False,
        )
        with torch.autocast(x.device.type, enabled=False):
            tape = Stack.of(recipe.cell, weights).advance(x, trajectory, taped.masks)
        moments = [layer.moment(steps=x.shape[0]) for layer in trajectory.layers]
        after = _plain(recipe, moments)[: taped.register_count + taped.buffer_count]
        ctx.mark_non_differentiable(*after[taped.register_count :])
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(*weights)
            ctx.taped, ctx.tape = taped, tape
        return tape.y, *after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor | None, *grad_state: Tensor | None) -> tuple[Tensor | None, ...]:
        taped, tape, stack = ctx.taped, ctx.tape, Stack.of(ctx.taped.recipe.cell, ctx.saved_tensors)
        grads = _layer_grads(taped, grad_state[: taped.register_count], like=tape.y)
        grad_y = torch.zeros_like(tape.y) if grad_y is None else grad_y
        with torch.autocast(tape.y.device.type, enabled=False):
            gradient = stack.backward(tape, grad_y, grads)
            grad_x = stack.input_gradient(gradient, tape) if ctx.needs_input_grad[1] else None
        before = [part.double() / ONE for first, second in gradient.state for part in (*first, *second)]
        return None, grad_x, *before, *[None] * taped.buffer_count, *gradient.weights


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


def _moments(taped: _Taped, fixed: Sequence[Tensor], buffers: Sequence[Tensor]) -> list[Moment]:
    halves, rest = _halves(taped, fixed), _halves(taped, buffers)
    return [Moment(*parts, taped.step) for parts in zip(halves, rest, strict=True)]


def _halves(taped: _Taped, parts: Sequence[Tensor]) -> list[tuple[Parts, Parts]]:
    count = taped.recipe.cell.register_count if parts else 0
    split = []
    for layer in range(taped.recipe.num_layers):
        start = 2 * count * layer
        split.append((tuple(parts[start : start + count]), tuple(parts[start + count : start + 2 * count])))
    return split


def _layer_grads(taped: _Taped, grads: Sequence[Tensor | None], *, like: Tensor) -> list[LayerGrads]:
    batch, units = like.shape[1], like.shape[2] // 2
    floats = [
        like.new_zeros(batch, units) if grad is None else grad.mul(ONE).to(like.dtype) for grad in grads
    ]
    return _halves(taped, floats)
