"""One look at a step before it is trusted: what must be replayed, and whether it keeps the rules.

The step is run for the tape on copies of its state, inputs and buffers, then without one, as stages are
advanced, and again with other random numbers where it may draw some that leave no trace; random streams are
put back. This is where a step is refused that changes its state's shape, writes into its state or inputs, or
captures an undeclared tensor, before the caller's data was touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C._autograd import _pop_saved_tensors_default_hooks as _pop_hooks
from torch._C._autograd import _push_saved_tensors_default_hooks as _push_hooks
from torch._C._autograd import _top_saved_tensors_default_hooks as _top_hooks

from executor.errors import ReplayError, UnsupportedBackward, UnsupportedHook
from executor.replay import recomputing
from executor.reversal import LostBits, Watching, passing
from executor.rules.agreement import alike
from executor.rules.captures import require_no_captures, sequence_number
from executor.rules.grad_mode import given_to, goes_by_grad_mode, two_advances
from executor.rules.second_run import differentiates_a_second_run
from executor.stages.parameters import Parameters
from executor.stages.program import Program
from executor.stages.states import raise_mutated
from executor.surroundings.buffers import Buffers, copied, untouched
from executor.surroundings.seen import tensors_seen
from executor.surroundings.streams import Stream, set_streams
from executor.trees import Leaves, detached, version_of, versions_of

_OTHER_SEED = 0x5DEECE66D


@dataclass(frozen=True)
class Needs:
    """What recomputation of a step must put back."""

    draws_random_numbers: bool
    """From a stream of torch's; all of them are put back then."""
    mutated_buffers: frozenset[str]
    lost: LostBits | None = None
    """What a step loses, of a loop whose segments can be undone; None for any other loop."""
    differentiates_a_second_run: bool = False
    """Whether a function in a step's graph may run modules again in its backward pass (`second_run`)."""
    advances_with_graphs: bool = False
    """Whether a step does something else, or nothing, where gradients are off: it differentiates, or asks."""
    makes_leaves: bool = False
    """Whether graphs of steps have leaves that the steps made themselves."""
    leaves_behind: bool = False
    """Whether steps leave something in attributes or dictionaries (`executor.surroundings.written`)."""
    moved_streams: frozenset[int] = frozenset()
    """Of the streams of Python and numpy that the step sees, the places of those that it draws from."""


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
    others: Sequence[Stream],
    *,
    forks: bool,
) -> Needs:
    """Run the first two stages of `program` on copies. Where a step `forks` a random stream, what it draws
    leaves no trace, and other seeds are tried; other threads see these.

    Raises StateChanged, StateMutated, CaptureError, UnsupportedOutput, UnsupportedHook or
    UnsupportedBackward; ReplayError where the step does not do the same when it runs again.
    """
    look = partial(_two_stages, program, initial, parameters, captured)
    before = _tensors_now(program.function)
    every: list[Stream] = [*generators, *others]
    with recomputing(), without_saved_tensor_hooks(), untouched(buffers, every) as (originals, streams):
        again = partial(_again, buffers, originals, every, streams)
        put = buffers.current()
        versions = versions_of(put)
        found = look()
        moved = [not torch.equal(at, each.get_state()) for at, each in zip(streams, every, strict=True)]
        draws = any(moved[: len(generators)])
        mutated = buffers.changed_since(originals) | buffers.written_since(put, versions)
        changed = buffers.subset(mutated)
        buffers_after = changed.current()

        def agrees(*, with_graphs: bool) -> bool:
            advance = partial(two_advances, program, initial, parameters, with_graphs=with_graphs)
            return alike(found.tensors, again(advance, 0)) and alike(buffers_after, changed.current())

        with_graphs = goes_by_grad_mode(agrees)
        if with_graphs is None:
            _raise_not_again(before, _tensors_now(program.function))
        if forks and not draws:
            draws = not alike(found.tensors, again(lambda: look().tensors, _OTHER_SEED))
    buffers.require_apart(mutated)
    drawn_from = frozenset(index for index, moves in enumerate(moved[len(generators) :]) if moves)
    return Needs(
        draws,
        mutated,
        lost=found.lost,
        differentiates_a_second_run=found.differentiates_a_second_run,
        advances_with_graphs=with_graphs is True,
        makes_leaves=found.makes_leaves,
        moved_streams=drawn_from,
    )


class _Found(NamedTuple):
    """What two stages show."""

    lost: LostBits | None
    """What each of their steps loses, if both can be undone."""
    tensors: list[Any]
    """The states after them, and what they put out."""
    differentiates_a_second_run: bool
    makes_leaves: bool


def _again(
    buffers: Buffers,
    originals: Sequence[Tensor],
    generators: Sequence[Stream],
    streams: Sequence[Tensor],
    look: Callable[[], list[Any]],
    change: int,
) -> list[Any]:
    """What the stages find from the same buffers, and from the same random streams or, with a `change`, from
    others.
    """
    buffers.put(copied(originals))
    set_streams(generators, streams)
    for generator in generators if change else ():
        if isinstance(generator, torch.Generator):
            generator.manual_seed(generator.initial_seed() ^ change)
    return look()


Versions = dict[str, tuple[Tensor, int]]


def _tensors_now(function: Callable[[Any, Any], Any]) -> Versions:
    """By where the function sees them: the tensors, and their versions."""
    return {name: (tensor, version_of(tensor)) for name, tensor in tensors_seen(function)}


def _raise_not_again(before: Versions, after: Versions) -> None:
    """Refuse a step that does not do the same when it runs again."""
    moved = sorted(
        name
        for name, (tensor, version) in after.items()
        if name not in before or before[name][0] is not tensor or before[name][1] != version
    )
    seems = f" (it changes {' and '.join(moved)})" if moved else ""
    raise ReplayError(
        "the step did not give the same results when it ran again from the same state, inputs, buffers and "
        f"random streams{seems}: what it keeps from step to step must be part of its state, or a buffer that "
        "is registered; numbers that count steps, iterators, and random numbers of hidden streams belong "
        "into the state or the inputs"
    )


def _two_stages(
    program: Program, initial: Leaves, parameters: Parameters, captured: Sequence[Tensor]
) -> _Found:
    leaves: Leaves = tuple(leaf.detach().clone() if isinstance(leaf, Tensor) else leaf for leaf in initial)
    lost: set[LostBits | None] = set()
    found: list[Any] = []
    runs_again = makes_leaves = False
    with parameters.swapped():
        for stage in range(1, min(2, program.length) + 1):
            watching = Watching()
            stage_found = _one_stage(program, stage, leaves, initial, parameters, captured, watching)
            leaves = stage_found.after
            lost.add(watching.found)
            found += [*leaves, *stage_found.put_out]
            runs_again |= stage_found.differentiates_a_second_run
            makes_leaves |= stage_found.makes_leaves
    alike_lost = lost.pop() if program.is_segment and len(lost) == 1 else None
    return _Found(alike_lost, found, runs_again, makes_leaves)


class _Stage(NamedTuple):
    """What one stage shows."""

    after: Leaves
    """The state after it, detached."""
    put_out: Leaves
    """Detached."""
    differentiates_a_second_run: bool
    makes_leaves: bool


def _one_stage(
    program: Program,
    stage: int,
    leaves: Leaves,
    initial: Leaves,
    parameters: Parameters,
    captured: Sequence[Tensor],
    watching: Watching,
) -> _Stage:
    torch.clear_autocast_cache()
    since = sequence_number()
    given, slices = given_to(program, stage, leaves, initial)
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
    _refuse_hooks(given)
    _refuse_backward([*given, *slices, *parameters.shadows])
    watching.conclude(given, after)
    roots = [*after, *(leaf for block in blocks for leaf in block)]
    inputs = [slices[position] for position in program.inputs.differentiable]
    declared = [leaf for leaf in given if isinstance(leaf, Tensor)]
    declared += [*inputs, *parameters.shadows, *captured]
    makes_leaves = require_no_captures(roots, declared, since, program.function)
    put_out = detached(leaf for block in blocks for leaf in block)
    return _Stage(detached(after), put_out, differentiates_a_second_run(roots, since), makes_leaves)


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


def _refuse_backward(leaves: Sequence[Any]) -> None:
    """Raise UnsupportedBackward where a step called `backward`, which added to gradients of its `leaves`."""
    if any(isinstance(leaf, Tensor) and leaf.grad is not None for leaf in leaves):
        raise UnsupportedBackward(
            "the step calls backward(), which adds to the gradients of its parameters, state or inputs each "
            "time that it runs: let it call torch.autograd.grad(loss, tensors), which leaves them alone"
        )


def _refuse_hooks(given: Leaves) -> None:
    """Raise UnsupportedHook where a step registered one on its state."""
    if any(isinstance(leaf, Tensor) and leaf._backward_hooks for leaf in given):  # noqa: SLF001 - as in `captures`
        raise UnsupportedHook(
            "the step registers a hook on the state that it is given: it would see the share of the gradient "
            "that comes through this step alone; register it on the new state, where the step makes it "
            "(tools that count by modules, as FlopCounterMode, register some: call the loop once before)"
        )
