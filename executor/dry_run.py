"""One look at a step before it is trusted: what must be replayed, and whether it keeps the rules.

The step is run twice for the tape on copies of its state, inputs and buffers, and again with other random
numbers where it may draw some that leave no trace; random streams are put back. This is where a step is
refused that changes its state's shape, writes into its state or inputs, or captures an undeclared tensor,
before the caller's data was touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._C._autograd import _pop_saved_tensors_default_hooks as _pop_hooks
from torch._C._autograd import _push_saved_tensors_default_hooks as _push_hooks
from torch._C._autograd import _top_saved_tensors_default_hooks as _top_hooks

from executor.captures import require_no_captures, sequence_number
from executor.parameters import Parameters
from executor.program import Program
from executor.replay import Buffers, recomputing
from executor.reversal import LostBits, Watching, passing
from executor.states import leaf_needs_gradient, raise_mutated
from executor.trees import Leaves, versions_of

_OTHER_SEED = 0x5DEECE66D


@dataclass(frozen=True)
class Needs:
    """What recomputation of a step must put back."""

    draws_random_numbers: bool
    mutated_buffers: frozenset[str]
    lost: LostBits | None = None
    """What a step loses, of a loop whose segments can be undone; None for any other loop."""


def ambient_generators(tensors: Sequence[Any]) -> list[torch.Generator]:
    """The default random streams of the CPU and of every CUDA device that `tensors` live on."""
    devices = sorted({leaf.device.index for leaf in tensors if isinstance(leaf, Tensor) and leaf.is_cuda})
    return [torch.default_generator, *(torch.cuda.default_generators[index] for index in devices)]


@contextmanager
def without_saved_tensor_hooks() -> Iterator[None]:
    """Within the context tapes keep what they keep: torch.utils.checkpoint's hooks would keep nothing of
    them, and end a rehearsal where the checkpointed function's own graph is complete.
    """
    top: Any = _top_hooks
    taken = []
    while (pair := top(True)) is not None:
        taken.append(pair)
        _pop_hooks()
    try:
        yield
    finally:
        for pair in reversed(taken):
            _push_hooks(*pair)


def dry_run(
    program: Program,
    initial: Leaves,
    buffers: Buffers,
    parameters: Parameters,
    captured: Sequence[Tensor],
    generators: Sequence[torch.Generator],
    *,
    forks: bool,
) -> Needs:
    """Run the first two stages of `program` on copies. Where a step `forks` a random stream, what it draws
    leaves no trace, and other seeds are tried; other threads see these.

    Raises StateChanged, StateMutated, CaptureError or UnsupportedOutput.
    """
    originals = buffers.current()
    streams = [generator.get_state() for generator in generators]
    try:
        with recomputing(), without_saved_tensor_hooks():
            buffers.put(tensor.detach().clone() for tensor in originals)
            lost, found = _two_stages(program, initial, parameters, captured)
            draws = any(
                not torch.equal(state, generator.get_state())
                for state, generator in zip(streams, generators, strict=True)
            )
            mutated = buffers.changed_since(originals)
            if not draws and forks:
                again = partial(
                    _again, program, initial, parameters, captured, buffers, originals, generators
                )
                draws = not _alike(found, again(_OTHER_SEED)) and _alike(found, again(0))
    finally:
        buffers.put(originals)
        for generator, state in zip(generators, streams, strict=True):
            generator.set_state(state)
    return Needs(draws, mutated, lost)


def _again(
    program: Program,
    initial: Leaves,
    parameters: Parameters,
    captured: Sequence[Tensor],
    buffers: Buffers,
    originals: Sequence[Tensor],
    generators: Sequence[torch.Generator],
    change: int,
) -> list[Any]:
    """What the stages find from the same buffers, and from the same random streams or, with a `change`, from
    others. They have not moved so far.
    """
    buffers.put(tensor.detach().clone() for tensor in originals)
    streams = [generator.get_state() for generator in generators]
    for generator in generators if change else ():
        generator.manual_seed(generator.initial_seed() ^ change)
    try:
        return _two_stages(program, initial, parameters, captured)[1]
    finally:
        for generator, state in zip(generators, streams, strict=True):
            generator.set_state(state)


def _alike(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether two runs found the same tensors; numbers that are none agree with themselves."""
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if isinstance(a, Tensor)]
    return all(a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all()) for a, b in pairs)


def _two_stages(
    program: Program, initial: Leaves, parameters: Parameters, captured: Sequence[Tensor]
) -> tuple[LostBits | None, list[Any]]:
    """What each of their steps loses, if both can be undone; the states after them and what they put out."""
    leaves: Leaves = tuple(leaf.detach().clone() if isinstance(leaf, Tensor) else leaf for leaf in initial)
    lost: set[LostBits | None] = set()
    found: list[Any] = []
    with parameters.swapped():
        for stage in range(1, min(2, program.length) + 1):
            watching = Watching()
            leaves, put_out = _one_stage(program, stage, leaves, initial, parameters, captured, watching)
            lost.add(watching.found)
            found += [*leaves, *put_out]
    return (lost.pop() if program.is_segment and len(lost) == 1 else None), found


def _one_stage(
    program: Program,
    stage: int,
    leaves: Leaves,
    initial: Leaves,
    parameters: Parameters,
    captured: Sequence[Tensor],
    watching: Watching,
) -> tuple[Leaves, Leaves]:
    """The state after the stage and what it puts out, detached."""
    torch.clear_autocast_cache()
    since = sequence_number()
    given = tuple(
        leaf.detach().requires_grad_(leaf_needs_gradient(initial[index], stage > 1))
        if isinstance(leaf, Tensor)
        else leaf
        for index, leaf in enumerate(leaves)
    )
    slices = program.inputs.slices(*program.steps_of(stage))
    for position in program.inputs.positions:  # copies: a step that writes into them is refused in time
        slices[position] = slices[position].detach().clone()
    for position in program.inputs.differentiable:
        slices[position].requires_grad_()
    versions = versions_of((*given, *slices))
    blocks: list[Leaves] = []
    checked = replace(program, function=_returning_pairs(program.function))
    with torch.enable_grad(), passing(watching):
        try:
            after = checked.run(stage, given, slices, lambda _first, _count, block: blocks.append(block))
        except RuntimeError as error:
            if "in-place operation" in str(error):
                raise_mutated(stage)
            raise
    if versions != versions_of((*given, *slices)):
        raise_mutated(stage)
    watching.conclude(given, after)
    roots = [*after, *(leaf for block in blocks for leaf in block)]
    inputs = [slices[position] for position in program.inputs.differentiable]
    declared = [leaf for leaf in given if isinstance(leaf, Tensor)]
    declared += [*inputs, *parameters.shadows, *captured]
    require_no_captures(roots, declared, since, program.function)
    return _detached(after), _detached([leaf for block in blocks for leaf in block])


def _returning_pairs(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The function; it raises TypeError where it returns something else than a state and an output."""

    def checked(state: Any, given: Any) -> Any:
        returned = function(state, given)
        if not isinstance(returned, tuple | list) or len(returned) != 2:
            found = (
                f"{len(returned)} values" if isinstance(returned, tuple | list) else type(returned).__name__
            )
            raise TypeError(
                f"a step returns two things, the state after it and its output (None for none), not {found}: "
                "return state, None"
            )
        return returned

    return checked


def _detached(leaves: Sequence[Any]) -> Leaves:
    return tuple(leaf.detach() if isinstance(leaf, Tensor) else leaf for leaf in leaves)
