"""The types in which torch's kernels return states under autocast."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from executor.drop_ins.chain_weights import ChainWeights
from executor.drop_ins.recurrence import Recurrence, State, run_fused
from executor.surroundings.autocast import is_autocast


def in_types_of_kernels(weights: ChainWeights, x: Tensor, state: State, batch_sizes: Tensor | None) -> State:
    """Under autocast torch's kernels return states of other types than they were given: those types, so that
    every segment is given what the one before it returned. Packed sequences of unequal lengths have others
    than those of equal ones.
    """
    if not is_autocast(x.device) or not len(x):
        return state
    recurrence = _tiny(weights.recurrence)
    first = tuple(
        part.new_zeros(recurrence.num_layers, part.shape[1], like.shape[2])
        for part, like in zip(state, recurrence.initial_state(x, batch_size=1), strict=True)
    )
    steps, sizes = x.new_zeros(1, x.shape[1], 1), None
    if batch_sizes is not None:
        sizes = batch_sizes[[0, -1]]
        steps = x.new_zeros(int(sizes.sum()), 1)
    with torch.no_grad():
        after, _ = run_fused(_zeros_for(recurrence, weights), recurrence, first, steps, sizes)
    return tuple(part.to(kind.dtype) for part, kind in zip(state, after, strict=True))


def _tiny(recurrence: Recurrence) -> Recurrence:
    """The same of a unit or two: types do not depend on sizes, and kernels copy whole weights."""
    projected = bool(recurrence.proj_size)
    return recurrence._replace(dropout=0.0, hidden_size=1 + projected, proj_size=int(projected))


def _zeros_for(recurrence: Recurrence, weights: ChainWeights) -> nn.Module:
    """Weights of the sizes of `recurrence`, of inputs of one feature, and the types of `weights`."""
    made = nn.Module()
    for layer in range(recurrence.num_layers):
        for name in recurrence.weight_names(layer):
            weight = getattr(weights, name)
            rows = weight.shape[0] // weights.recurrence.hidden_size * recurrence.hidden_size
            columns = 1 if name.startswith("weight_ih") and layer == 0 else recurrence.output_size
            shape = (rows, columns)[: weight.dim()]
            if name.startswith("weight_hr"):
                shape = (recurrence.proj_size, recurrence.hidden_size)
            made.register_buffer(name, weight.new_zeros(shape))
    return made
