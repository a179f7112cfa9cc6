"""Steps that go by whether gradients are enabled: those that differentiate something (forces that are
gradients of an energy, inner optimisers), and those that ask (a codebook that moves only in training).

A plain training loop runs every step with gradients enabled. Here most stages are advanced, which keeps no
graph and needs none: for such steps there is one all the same, of one step at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from executor.reversal import passing
from executor.stages.parameters import Parameters
from executor.stages.program import Program
from executor.stages.states import leaf_needs_gradient
from executor.trees import Leaves, detached


def goes_by_grad_mode(agrees: Callable[..., bool]) -> bool | None:
    """Whether stages that are advanced do what they did on the tape only where gradients are enabled.

    `agrees(with_graphs=…)` advances them, with gradients enabled or not, and says whether they found the same
    as on the tape. None: they do not even with gradients enabled, or not each time.
    """
    fails = False
    try:
        if agrees(with_graphs=False):
            return False
    except Exception:  # of any kind: if it is not about gradients, the next run raises it again
        fails = True
    if not agrees(with_graphs=True):
        return None
    return True if fails or not agrees(with_graphs=False) else None


def two_advances(
    program: Program, initial: Leaves, parameters: Parameters, *, with_graphs: bool
) -> list[Any]:
    """The states after two stages that are advanced, and what they put out."""
    leaves: Leaves = tuple(leaf.detach().clone() if isinstance(leaf, Tensor) else leaf for leaf in initial)
    found: list[Any] = []
    with parameters.swapped(), torch.set_grad_enabled(with_graphs), passing(None):
        for stage in range(1, min(2, program.length) + 1):
            torch.clear_autocast_cache()
            given, slices = given_to(program, stage, leaves, initial)
            if not with_graphs:
                given = detached(given)
            blocks: list[Leaves] = []
            emit = partial(_keep, blocks)
            leaves = program.run(stage, given, slices, emit, is_taped=False)
            found += [*leaves, *(leaf for block in blocks for leaf in detached(block))]
    return found


def _keep(blocks: list[Leaves], _first: int, _count: int, block: Leaves) -> None:
    blocks.append(block)


def given_to(program: Program, stage: int, leaves: Leaves, initial: Leaves) -> tuple[Leaves, list[Any]]:
    """The state before a stage and its inputs as leaves of a graph: copies of inputs, so that a step that
    writes into them is refused in time.
    """
    given = tuple(
        leaf.detach().requires_grad_(leaf_needs_gradient(initial[index], stage > 1))
        if isinstance(leaf, Tensor)
        else leaf
        for index, leaf in enumerate(leaves)
    )
    slices = program.inputs.slices(*program.steps_of(stage))
    for position in program.inputs.positions:
        slices[position] = slices[position].detach().clone()
    for position in program.inputs.differentiable:
        slices[position].requires_grad_()
    return given, slices
