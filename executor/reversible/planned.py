"""Reversible layers inside a byte budget: undone, checkpointed or both, as the planner finds cheapest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from executor.drop_ins.computed_weights import computing_bytes
from executor.errors import BudgetTooSmall
from executor.memory.budget import parse_budget_bytes
from executor.memory.sizes import held_bytes
from executor.reversible.fixed_point import ONE
from executor.reversible.outer import Outer, one_tensor
from executor.reversible.sequence import State, check_range, halves_of, join_state
from executor.reversible.taped import PlainState, layers_of_state
from executor.unroll import unroll

if TYPE_CHECKING:
    from executor.reversible.modules import Reversible


def run_in_budget(
    module: Reversible,
    inputs: Tensor,
    state: State,
    budget: int | str,
    *,
    is_given: bool,
    before: Outer,
    after: Outer,
    targets: Tensor | None,
) -> tuple[Tensor, State]:
    """Outputs [T, B, …] of inputs, or with targets the sum of `after` over them, and the last state.

    The call adds at most `budget` to what was allocated before it (see `unroll`), `state` included unless it
    `is_given` by the caller. Raises BudgetTooSmall.
    """
    check_range(state, len(inputs))
    budget_bytes, start = parse_budget_bytes(budget), start_of(module, state)
    beside_bytes = _beside_bytes(state, start, is_given=is_given) + computing_bytes(module)
    computed = module.computed_weights()
    outer = [part.module for part in (before, after) if part.module is not None]
    try:
        outputs, last = unroll(
            None,
            start,
            inputs if targets is None else (inputs, targets),
            segment=segment_of(module, computed, before, after, has_targets=targets is not None),
            module=[module, *outer],
            captured=[each for each in (*computed.values(), *after.shared) if each.requires_grad],
            reduce="stack" if targets is None else "sum",
            budget=max(1, budget_bytes - beside_bytes),
        )
    except BudgetTooSmall as error:
        needed = error.minimum_budget_bytes + beside_bytes
        raise BudgetTooSmall(budget_bytes=budget_bytes, minimum_budget_bytes=needed) from error
    return outputs, floats_of(module, last, dtype=state[0].dtype)


def _beside_bytes(state: State, start: PlainState, *, is_given: bool) -> int:
    """What a call holds beside its loop: the state that it begins with, in fixed point and, where the caller
    has not given it, as floats; the last one as floats, and once more where its parts are put together or
    have their gradients.
    """
    fixed = sum(held_bytes(part) for part in start if isinstance(part, Tensor))
    return fixed + (2 if is_given else 3) * sum(held_bytes(part) for part in state)


def segment_of(
    module: Reversible, computed: Mapping[str, Tensor], before: Outer, after: Outer, *, has_targets: bool
) -> Callable[[PlainState, Any], tuple[PlainState, Tensor]]:
    """The layers with what runs around them, k steps at a time; weights that are `computed` are the same for
    all of them.
    """
    enter, leave, shared = before.module, after.module, after.shared

    def segment(state: PlainState, given: Any) -> tuple[PlainState, Tensor]:
        inputs, *targets = given if has_targets else (given,)
        x = inputs if enter is None else one_tensor(enter(inputs))
        state, y = module.segment_with(computed, state, x)
        return state, y if leave is None else one_tensor(leave(y, *targets, *shared))

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


def floats_of(module: Reversible, state: PlainState, *, dtype: torch.dtype) -> State:
    """The state as floats, as torch orders h and c. Part by part: they are float64 on the way."""
    registers = module.cell.register_count
    floats = [(part / ONE).to(dtype) for part in state[: 2 * registers * module.num_layers]]
    return join_state(layers_of_state(floats, registers=registers, layers=module.num_layers))
