"""k steps of one layer as one autograd function: forward as ever, backward under a rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from executor.errors import StateChanged
from executor.rules.first_order import first_order, require_reverse_mode
from executor.rules.own_memory import require_values
from executor.sparse.backward_pass import Gradients
from executor.sparse.cell import Cell, Reversal, State, Tape
from executor.sparse.input_types import in_type_of
from executor.sparse.sparsifier import Sparsifier, dense_gradients
from executor.torch_weights import TorchWeights


@dataclass(frozen=True)
class _Work:
    """What the function is told beside tensors."""

    cell: Cell
    sparsifier: Sparsifier | None
    layer: str


def run_layer(
    cell: Cell, sparsifier: Sparsifier | None, x: Tensor, state: State, weights: TorchWeights, *, layer: str
) -> tuple[Tensor, State]:
    """The h after each of the k steps of x [k, B, input], [k, B, H], and the state after the last.

    Without a sparsifier the way back is dense. `layer` names the layer among those that share one. A cell's
    step is k = 1. The type is that of the weights, under autocast too. Raises StateChanged for another one,
    and for shapes that do not belong together, TypeError for tensors without values: kernels that are given
    addresses trust them.
    """
    sizes = (x.shape[1], weights.weight_hh.shape[1])
    if len(state) != len(cell.state_names) or any(part.shape != sizes for part in state):
        raise StateChanged(
            f"the state has the shapes {[list(part.shape) for part in state]}: "
            f"({', '.join(cell.state_names)}) must be {list(sizes)} each for inputs of {sizes[0]} sequences"
        )
    require_reverse_mode((x, *state, *(each for each in weights if each is not None)), "a sparse layer")
    require_values((x, *state, *weights), "a sparse layer")
    x = in_type_of(weights.weight_ih, x, "the input")
    given = [in_type_of(weights.weight_ih, part, "a part of the state") for part in state]
    y, *after = _Segment.apply(_Work(cell, sparsifier, layer), x, *weights, *given)  # type: ignore[no-untyped-call]
    return y, tuple(after)


class _Segment(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, work: _Work, x: Tensor, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        weights = TorchWeights(*tensors[:4])  # type: ignore[arg-type]
        given: State = tuple(part for part in tensors[4:] if part is not None)
        with torch.autocast(x.device.type, enabled=False):
            tape, after = work.cell.advance(x, given, weights)
        ctx.work = work
        ctx.part_count = len(tape.parts)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, tape.hidden, *tape.parts, *weights)
        # Copies: the state must not keep the whole tape alive, nor be a view of another output.
        return tape.hidden[1:], *(part.clone() for part in after)

    @staticmethod
    @first_order("a sparse layer")
    def backward(ctx: Any, grad_y: Tensor | None, *grad_after: Tensor | None) -> tuple[Tensor | None, ...]:
        x, hidden, *rest = ctx.saved_tensors
        parts, weights = tuple(rest[: ctx.part_count]), TorchWeights(*rest[ctx.part_count :])
        grads = tuple(torch.zeros_like(hidden[0]) if grad is None else grad for grad in grad_after)
        grad_y = hidden.new_zeros(()).expand_as(hidden[1:]) if grad_y is None else grad_y
        with torch.autocast(x.device.type, enabled=False):
            reversal = ctx.work.cell.reversal(Tape(x, hidden, parts), grads)
            wants_weights = _are_wanted(ctx.next_functions[1 : 1 + sum(w is not None for w in weights)])
            found = _gradients(
                ctx.work,
                reversal,
                weights,
                grad_y,
                wants_x=ctx.needs_input_grad[1],
                wants_weights=wants_weights,
            )
        return None, found.x, *found.weights, *found.state


def _gradients(
    work: _Work,
    reversal: Reversal,
    weights: TorchWeights,
    grad_y: Tensor,
    *,
    wants_x: bool,
    wants_weights: bool,
) -> Gradients:
    if work.sparsifier is None:
        return dense_gradients(reversal, weights, grad_y, wants_x=wants_x)
    wanted = {"wants_x": wants_x, "wants_weights": wants_weights}
    return work.sparsifier.backward(reversal, weights, grad_y, layer=work.layer, **wanted)


def _are_wanted(edges: Sequence[tuple[Any, int]]) -> bool:
    """Whether the running backward pass goes on to any of these nodes: not to frozen weights, nor to those
    that `torch.autograd.grad` was not asked for, though they need a gradient.
    """
    return any(node is not None and _is_wanted(node) for node, _ in edges)


def _is_wanted(node: Any) -> bool:
    will_run: Any = torch._C._will_engine_execute_node  # noqa: SLF001 - it has no public name
    try:
        return bool(will_run(node))
    except RuntimeError:  # of a leaf that `torch.autograd.grad` was asked for, it says nothing but this
        return True
