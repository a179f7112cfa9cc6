"""Reversible layers inside a byte budget: undone, checkpointed or both, as the planner finds cheapest."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from executor.reversible.fixed_point import ONE
from executor.reversible.outer import Outer
from executor.reversible.sequence import State, check_range, halves_of, join_state
from executor.reversible.taped import PlainState, layers_of_state
from executor.unroll import unroll

if TYPE_CHECKING:
    from executor.reversible.modules import Reversible


def run_in_budget(
    module: Reversible, inputs: Tensor, state: State, *, before: Outer, after: Outer, targets: Tensor | None
) -> tuple[Tensor, State]:
    """Outputs [T, B, …] of inputs, or with targets the sum of `after` over them, and the last state.

    The call adds at most `module.budget` to what was allocated before it (see `unroll`).
    Raises BudgetTooSmall.
    """
    check_range(state, len(inputs))
    outer = [part.module for part in (before, after) if part.module is not None]
    outputs, last = unroll(
        None,
        start_of(module, state),
        inputs if targets is None else (inputs, targets),
        segment=segment_of(module, before, after, has_targets=targets is not None),
        module=[module, *outer],
        captured=[tensor for tensor in after.shared if tensor.requires_grad],
        reduce="stack" if targets is None else "sum",
        budget=module.budget,
    )
    return outputs, floats_of(module, last)


def segment_of(
    module: Reversible, before: Outer, after: Outer, *, has_targets: bool
) -> Callable[[PlainState, Any], tuple[PlainState, Tensor]]:
    """The layers with what runs around them, k steps at a time."""
    enter, leave, shared = before.module, after.module, after.shared

    def segment(state: PlainState, given: Any) -> tuple[PlainState, Tensor]:
        inputs, *targets = given if has_targets else (given,)
        state, y = module.segment(state, inputs if enter is None else enter(inputs))
        return state, y if leave is None else leave(y, *targets, *shared)

    return segment


def start_of(module: Reversible, state: State) -> PlainState:
    """`state` in fixed point with empty buffers; gradients flow through as if nothing were rounded."""
    plain = module.plain_state(tuple(part.detach() for part in state))
    scaled = [part.double() * ONE for part in state]
    registers = [
        part for layer in halves_of(scaled, layers=module.num_layers) for half in layer for part in half
    ]
    straight = [
        fixed + (register - register.detach()) if register.requires_grad else fixed
        for fixed, register in zip(plain, registers, strict=False)
    ]
    return (*straight, *plain[len(straight) :])


def floats_of(module: Reversible, state: PlainState) -> State:
    """The state as floats, as torch orders h and c."""
    dtype = next(module.parameters()).dtype
    floats = [part / ONE if isinstance(part, Tensor) else part for part in state]
    layers = layers_of_state(floats, registers=module.cell.register_count, layers=module.num_layers)
    return tuple(part.to(dtype) for part in join_state(layers))
