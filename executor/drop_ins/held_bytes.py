"""Bytes that a call of a drop-in holds beside its chains."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from executor.drop_ins.recurrence import Recurrence, State
from executor.memory.sizes import held_bytes

_INDEX_BYTES = 8
"""Of a place in a padded batch."""


def made_bytes(state: State, given: Any) -> int:
    """Bytes of an initial state that the caller did not give, and so does not hold."""
    return 0 if given is not None else sum(held_bytes(part) for part in state)


def reordered_bytes(state: State) -> int:
    """The last state in the caller's order, and its gradient."""
    return 2 * sum(held_bytes(part) for part in state)


def unpacked_bytes(whole: Recurrence, x: Tensor, *, directions: int, trains_input: bool) -> int:
    """What a packed call holds beside its chains: padded inputs [T, batch, input] and where they came from,
    packed outputs and where they go, and the gradients of both. As if every sequence had full length: what is
    left to the chains, and with it the plan, is the same for all lengths.
    """
    places = x.shape[0] * x.shape[1]
    row_bytes = x.shape[-1] * x.element_size()
    outputs = 2 * (whole.output_size * directions * x.element_size() + _INDEX_BYTES)
    inputs = 2 * _INDEX_BYTES + 1 + row_bytes * (2 if trains_input else 1)
    return places * (outputs + inputs)


def between_bytes(whole: Recurrence, x: Tensor, *, has_dropout: bool) -> int:
    """What a bidirectional call holds beside its chains: turned and joined sequences, masks, and their
    gradients.
    """
    row = x.shape[0] * x.shape[1] * x.element_size()
    above = 2 * whole.output_size
    turned = 2 * (x.shape[-1] + (whole.num_layers - 1) * above)
    masks = 3 * above * (whole.num_layers - 1) if has_dropout else 0
    return row * (turned + masks + 3 * above * whole.num_layers)
