"""One look at a step before it is trusted: what must be replayed, and whether it keeps the rules.

The step is run on copies of its state, inputs and buffers: watched for what it asks of tensors and of other
processes, for the tape, without one, as stages are advanced, and again with other random numbers where it may
draw some that leave no trace; random streams are put back. This is where a step is refused that changes its
state's shape, writes into its state or inputs, or captures an undeclared tensor, before the caller's data was
touched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import compress
from typing import Any, NamedTuple

import torch
from torch import Tensor

from executor.errors import ReplayError, UnsupportedBackward, UnsupportedHook
from executor.replay import recomputing
from executor.reversal import LostBits, Watching, passing
from executor.rules.agreement import alike
from executor.rules.captures import require_no_captures, sequence_number
from executor.rules.cycles import leaves_cycles
from executor.rules.grad_mode import given_to, goes_by_grad_mode, two_advances
from executor.rules.needs import Needs
from executor.rules.saved_tensor_hooks import without_saved_tensor_hooks
from executor.rules.second_run import differentiates_a_second_run
from executor.rules.values import by_values
from executor.stages.parameters import Parameters
from executor.stages.program import Program
from executor.stages.states import raise_mutated
from executor.surroundings.buffers import Buffers, copied, untouched
from executor.surroundings.seen import tensors_seen
from executor.surroundings.streams import Stream, set_streams
from executor.trees import Leaves, detached, version_of, versions_of

_OTHER_SEED = 0x5DEECE66D


def dry_run(
    program: Program,
    initial: Leaves,
    parameters: Parameters,
    captured: Sequence[Tensor],
    *,
    buffers: Buffers,
    streams: Sequence[Stream],
    forks: bool,
) -> Needs:
    """Run the first two stages of `program` from the state `initial`, on copies of it and of the `buffers`.

    Where a step `forks` a random stream, what it draws leaves no trace in the `streams`: the stages are run
    once more with other seeds, and it draws if they find something else. Other threads see these seeds.

    Raises StateChanged, StateMutated, CaptureError, UnsupportedOutput, UnsupportedHook, UnsupportedBackward
    or UnsupportedCollective; ReplayError where the step does not do the same when it runs again.
    """
    stages = _TwoStages(program, initial, parameters, captured)
    seen_before = _tensors_now(program.function)
    with recomputing(), without_saved_tensor_hooks(), untouched(buffers, streams) as begun_with:
        start = _Start(buffers, streams, *begun_with)
        told = by_values(partial(stages.advanced, with_graphs=True))
        start.put_back()
        put = buffers.current()
        versions = versions_of(put)
        taped, in_cycles = leaves_cycles(stages.taped)
        moved = start.moved_streams()
        mutated = buffers.changed_since(start.buffer_values) | buffers.written_since(put, versions)
        changed = buffers.subset(mutated)
        buffers_after = changed.current()

        def agrees(*, with_graphs: bool) -> bool:
            advanced = start.again(partial(stages.advanced, with_graphs=with_graphs))
            return alike(taped.tensors, advanced) and alike(buffers_after, changed.current())

        with_graphs = goes_by_grad_mode(agrees)
        if with_graphs is None:
            _raise_not_again(seen_before, _tensors_now(program.function))
        draws = any(isinstance(each, torch.Generator) for each in compress(streams, moved))
        if forks and not draws:
            otherwise = start.again(lambda: stages.taped().tensors, change=_OTHER_SEED)
            draws = not alike(taped.tensors, otherwise)
    buffers.require_apart(mutated)
    others = [
        moves for each, moves in zip(streams, moved, strict=True) if not isinstance(each, torch.Generator)
    ]
    return Needs(
        draws,
        mutated,
        lost=taped.lost,
        differentiates_a_second_run=taped.differentiates_a_second_run,
        advances_with_graphs=with_graphs is True,
        by_values=told,
        makes_leaves=taped.makes_leaves,
        leaves_cycles=in_cycles,
        moved_streams=frozenset(index for index, moves in enumerate(others) if moves),
    )


@dataclass(frozen=True)
class _Start:
    """What the stages begin with beside their state: set again before each run of them."""

    buffers: Buffers
    streams: Sequence[Stream]
    buffer_values: Sequence[Tensor]
    stream_states: Sequence[Tensor]

    def moved_streams(self) -> list[bool]:
        """Of each stream, whether somebody drew from it since."""
        states = zip(self.stream_states, self.streams, strict=True)
        return [not torch.equal(state, each.get_state()) for state, each in states]

    def put_back(self) -> None:
        """Set everything again."""
        self.buffers.put(copied(self.buffer_values))
        set_streams(self.streams, self.stream_states)

    def again(self, run: Callable[[], list[Any]], *, change: int = 0) -> list[Any]:
        """What `run` finds from here; with a `change`, from other seeds of torch's streams."""
        self.put_back()
        for each in self.streams if change else ():
            if isinstance(each, torch.Generator):
                each.manual_seed(each.initial_seed() ^ change)
        return run()


class _Found(NamedTuple):
    """What two stages show."""

    lost: LostBits | None
    """What each of their steps loses, if both can be undone."""
    tensors: list[Any]
    """The states after them, and what they put out; detached."""
    differentiates_a_second_run: bool
    makes_leaves: bool


class _FoundOfOne(NamedTuple):
    """What one stage shows."""

    after: Leaves
    """The state after it, detached."""
    put_out: Leaves
    """Detached."""
    lost: LostBits | None
    differentiates_a_second_run: bool
    makes_leaves: bool


@dataclass(frozen=True)
class _TwoStages:
    """The first two stages of a loop, or the only one, from copies of the state `initial`."""

    program: Program
    initial: Leaves
    parameters: Parameters
    captured: Sequence[Tensor]

    def advanced(self, *, with_graphs: bool) -> list[Any]:
        """Run them as they are advanced: the states after them, and what they put out."""
        return two_advances(self.program, self.initial, self.parameters, with_graphs=with_graphs)

    def taped(self) -> _Found:
        """Run them as they are taped, and look at their graphs. Raises what a step is refused for."""
        leaves: Leaves = tuple(
            leaf.detach().clone() if isinstance(leaf, Tensor) else leaf for leaf in self.initial
        )
        stages: list[_FoundOfOne] = []
        with self.parameters.swapped():
            for stage in range(1, min(2, self.program.length) + 1):
                stages.append(self._tape(stage, leaves))
                leaves = stages[-1].after
        lost = {stage.lost for stage in stages}
        return _Found(
            lost.pop() if self.program.is_segment and len(lost) == 1 else None,
            [leaf for stage in stages for leaf in (*stage.after, *stage.put_out)],
            any(stage.differentiates_a_second_run for stage in stages),
            any(stage.makes_leaves for stage in stages),
        )

    def _tape(self, stage: int, leaves: Leaves) -> _FoundOfOne:
        """One stage, from the state `leaves`."""
        torch.clear_autocast_cache()
        since = sequence_number()
        given, slices = given_to(self.program, stage, leaves, self.initial)
        versions = versions_of((*given, *slices))
        watching = Watching()
        after, put_out = self._run(stage, given, slices, watching)
        if versions != versions_of((*given, *slices)):
            raise_mutated(stage)
        _refuse_hooks(given)
        _refuse_backward([*given, *slices, *self.parameters.shadows])
        watching.conclude(given, after)
        roots = [*after, *put_out]
        inputs = [slices[position] for position in self.program.inputs.differentiable]
        declared = [leaf for leaf in given if isinstance(leaf, Tensor)]
        declared += [*inputs, *self.parameters.shadows, *self.captured]
        makes_leaves = require_no_captures(roots, declared, since, self.program.function)
        again = differentiates_a_second_run(roots, since)
        return _FoundOfOne(detached(after), detached(put_out), watching.found, again, makes_leaves)

    def _run(self, stage: int, given: Leaves, slices: list[Any], watching: Watching) -> tuple[Leaves, Leaves]:
        """The state after a stage and what it put out, with their graph."""
        blocks: list[Leaves] = []
        checked = replace(self.program, function=_returning_pairs(self.program.function))
        with torch.enable_grad(), passing(watching):
            try:
                after = checked.run(stage, given, slices, lambda _first, _count, block: blocks.append(block))
            except RuntimeError as error:
                if "in-place operation" in str(error):
                    raise_mutated(stage)
                raise
        return after, tuple(leaf for block in blocks for leaf in block)


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
