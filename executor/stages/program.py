"""What the engine runs: stage i of a chain, from the leaves of one state to those of the next.

A per-step function is looped over the segment's steps; a segment function (a fused kernel, say) is
called once. Either way the engine sees leaves in, leaves out, and the outputs on the side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from executor.errors import StateChanged
from executor.stages.inputs import Inputs
from executor.stages.outputs import Outputs
from executor.trees import Leaves, Structure, cut, leaf_description, ungraphed
from planner_service.chain import segment_sizes

Emit = Callable[[int, int, Leaves], None]
"""Receives (first step, number of steps, leaves of the block) as soon as a block exists."""


@dataclass(frozen=True)
class Program:
    """The chain of `inputs.length` steps in segments of `segment_steps`."""

    function: Callable[[Any, Any], Any]
    """step(state, x_t) or segment(state, x[k, …]), returning (state, output)."""
    is_segment: bool
    structure: Structure
    """Of the state."""
    description: tuple[Any, ...]
    """What every state's leaves must look like: see `leaf_description`."""
    inputs: Inputs
    outputs: Outputs
    segment_steps: int
    sees_undeclared: bool = False
    """Whether the function sees tensors that need a gradient and were not declared: steps may use them."""

    @cached_property
    def length(self) -> int:
        """Number of stages."""
        return segment_sizes(self.inputs.length, self.segment_steps)[0]

    def steps_of(self, stage: int) -> tuple[int, int]:
        """First step (0-based) and number of steps of stage 1..length."""
        steps = self.segment_steps
        first = (stage - 1) * steps
        left = self.inputs.length - first
        return first, steps if steps < left else left

    def run(
        self,
        stage: int,
        leaves: Leaves,
        slices: list[Any],
        emit: Emit | None,
        before_step: Callable[[], None] | None = None,
        held: frozenset[int] | None = frozenset(),
        *,
        is_taped: bool = True,
    ) -> Leaves:
        """Run one stage from the state `leaves`, its inputs `slices` (see Inputs.slices).

        The state that comes out has no storage in common with the one before, nor with those at the addresses
        `held`: parameters, inputs and others that are there throughout. Where that is None no state is
        stored, and they may share what they like.
        `before_step` is called before each step of a step function. Where gradients are off, or the stage is
        not `is_taped`, the state that comes out has no graph, also of steps that enable gradients themselves
        (forces that are gradients of an energy, inner optimisers): states would hold one another's graphs
        alive.
        """
        is_taped = is_taped and torch.is_grad_enabled()
        first, count = self.steps_of(stage)
        state = self.structure.unflatten(leaves)
        if self.is_segment:
            state, block = self.function(state, self.inputs.block(slices, first, count))
            if emit is not None:
                emit(first, count, self.outputs.flatten(block))
        else:
            state = self._loop(
                state,
                self.inputs.steps(slices, first, count),
                (first, count),
                emit,
                before_step,
                is_taped=is_taped,
            )
        after = self.structure.flatten(state)
        self._check(after, stage)
        after = after if is_taped else ungraphed(after)
        return after if held is None else _apart(after, leaves, held)

    def _loop(
        self,
        state: Any,
        inputs: Iterable[Any],
        steps: tuple[int, int],
        emit: Emit | None,
        before_step: Callable[[], None] | None,
        *,
        is_taped: bool,
    ) -> Any:
        function, (first, count) = self.function, steps
        given_next = iter(inputs)
        for step in range(first, first + count):
            if before_step is not None:
                before_step()
            given = next(given_next)  # not before: an input that is computed uses this step's leaves
            state, output = function(state, given)
            if emit is not None:
                emit(step, 1, self.outputs.flatten(output))
            del output, given
            if not is_taped:
                state = self._cut(state)
        return state

    def _cut(self, state: Any) -> Any:
        leaves = self.structure.flatten(state)
        without = cut(leaves)
        return state if without is leaves else self.structure.unflatten(without)

    def _check(self, leaves: Leaves, stage: int) -> None:
        for leaf, expected in zip(leaves, self.description, strict=True):
            if isinstance(leaf, Tensor):
                if leaf.shape == expected[0] and leaf.dtype is expected[1] and leaf.device == expected[2]:
                    continue
            elif type(leaf) is expected[0]:
                continue
            self._raise_changed(leaves, stage)

    def _raise_changed(self, leaves: Leaves, stage: int) -> None:
        found = [leaf_description(leaf) for leaf in leaves]
        position = next(i for i, each in enumerate(found) if each != self.description[i])
        raise StateChanged(
            f"leaf {position} of the state is {found[position]} after stage {stage} but was "
            f"{self.description[position]} before: a step must return a state of the shape and type that it "
            "was given, and its output after it"
        )


def _apart(after: Leaves, before: Leaves, held: frozenset[int]) -> Leaves:
    """The leaves `after` a stage, each in memory of its own.

    Copied are tensors that the step hands on from the state `before`: stored, one state would keep bytes of
    its neighbour alive, which no plan counts. Copied as well are tensors that lie in memory at the addresses
    `held` (a weight, an input that the next step needs again), though these cost nothing: without that the
    next state would find them in the state before and copy them, and states would not be of one size.
    """
    storages = {leaf.untyped_storage().data_ptr() for leaf in before if isinstance(leaf, Tensor)}

    def is_shared(leaf: Any) -> bool:
        if not isinstance(leaf, Tensor) or not leaf.numel():
            return False
        address = leaf.untyped_storage().data_ptr()
        return address in storages or address in held

    return tuple(leaf.clone() if is_shared(leaf) else leaf for leaf in after)
