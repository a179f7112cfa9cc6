"""A rehearsal: the loop's first few segments, run through the engine on copies, changing nothing.

It covers every kind of stage (the first, an inner one, the last with the true remainder) and every kind
of action on each, holding no more than one tape and two states at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from executor.engine import Observer, Run
from executor.loop import Loop
from executor.memory.sizes import held_bytes, storage_bytes
from executor.probing.action_costs import ActionBytes
from executor.probing.left_behind import kept_bytes
from executor.probing.survey import Gaps, Survey, Surveyed, Watched
from executor.replay import recomputing
from executor.reversal import LostBits, unnoted_archives
from executor.rules.needs import Needs
from executor.stages.parameters import Parameters
from executor.stages.states import may_count
from executor.surroundings.buffers import Buffers, untouched
from executor.surroundings.written import nothing_written
from executor.trees import Leaves, is_continuous
from executor.undoing import UndoingRun
from planner_service.chain import (
    Action,
    Advance,
    Archive,
    Backward,
    Free,
    Tape,
    TieredAction,
    Undo,
    segment_sizes,
)


@runtime_checkable
class LeavesTraces(Protocol):
    """A module whose passes leave more behind than gradients, buffers and random streams: counts, say."""

    def without_traces(self) -> AbstractContextManager[None]:
        """A context in which they run as ever, and at whose end all is as it was before."""

    @property
    def trace_bytes(self) -> int:
        """Bytes of tensors that they leave now."""


class Rehearsal:
    """`loop` cut down to at most `most_stages` segments of `segment_steps`; run it as often as needed.

    The first run, unobserved, learns what the outputs look like and warms kernels up. In later ones the
    outputs, their gradients and those of the inputs exist beforehand, so that the observer sees only
    what the actions themselves add.
    """

    def __init__(self, loop: Loop, needs: Needs, segment_steps: int, *, most_stages: int = 3) -> None:
        segments, self.last_steps = segment_sizes(loop.inputs.length, segment_steps)
        self.stages = min(most_stages, segments)
        self.segment_steps = segment_steps
        self._needs = needs
        self._whole = loop
        self._loop = loop.shortened((self.stages - 1) * segment_steps + self.last_steps)
        self._output_gradients: list[Tensor | None] = []
        self._state_gradients: list[Tensor | None] = []
        self.accumulated_bytes: list[int] = []
        """Gradients of parameters and captured tensors that were live before each observed action."""
        self.output_leaves: list[Tensor] = []
        """Like the outputs; they hold one number each."""
        self.final_state_bytes = 0
        """What the final state adds to the initial one."""
        self.gaps = Gaps()
        self.run(None, make_run=partial(Watched, gaps=self.gaps))

    @property
    def counts(self) -> bool:
        """Whether one step may be told from another: by the state, by values of the inputs, or by t."""
        loop = self._whole
        told_apart = loop.told_apart_by is not None or loop.inputs.function is not None
        return told_apart or any(may_count(leaf) for leaf in loop.initial)

    @property
    def goes_by_values(self) -> bool:
        """Whether steps that were not rehearsed may do something else, by what is in their tensors."""
        return bool(self._needs.by_values)

    def survey(self, left_bytes: int) -> Surveyed:
        """Measure every stage of the whole loop. Any of them leaves `left_bytes` in the place of what the one
        before left; where stages keep something each for itself, when they have it.
        """
        found = self._surveyed()
        steps = self._whole.inputs.length
        kept = kept_bytes(found.left_bytes, left_bytes, steps, rehearsed_steps=self._loop.inputs.length)
        if not kept:
            return found
        again = self._surveyed()
        return again._replace(kept_bytes=kept, peak_bytes=max(found.peak_bytes, again.peak_bytes + kept))

    def _surveyed(self) -> Surveyed:
        """The outputs and their gradients exist beforehand."""
        loop = self._whole.shortened(self._whole.inputs.length)
        program = loop.program(self.segment_steps)
        program.outputs.leaves = [loop.whole_output(leaf) for leaf in self.output_leaves]
        gradients = [
            _gradient_like(leaf, transposed=loop.outputs_transposed) for leaf in program.outputs.leaves
        ]
        survey = Survey(
            program,
            loop.initial,
            (),
            parameters=Parameters(loop.modules),
            replay=loop.replay(self._needs),
            captured=loop.captured,
        )
        return survey.measured(gradients, Buffers(self.modules), loop.device)

    def schedule(self) -> list[Action]:
        """Every action on every kind of stage; all but the last are advanced a second time."""
        last = self.stages
        actions: list[Action] = [Advance(stage, stage) for stage in range(1, last)]
        actions += [Tape(last, last), Backward(last, last)]
        for stage in range(last - 1, 0, -1):
            actions += [Free(stage), Advance(stage, stage), Free(stage), Tape(stage, stage)]
            actions += [Backward(stage, stage)]
        return actions

    def undoing_schedule(self) -> list[Action]:
        """Every stage archived, then undone, one record each."""
        stages = range(1, self.stages + 1)
        return [*(Archive(stage, stage) for stage in stages), *(Undo(stage, stage) for stage in stages[::-1])]

    def steps_of(self, index: int) -> int:
        """Steps of the stage `index`, from 0."""
        return self.last_steps if index == self.stages - 1 else self.segment_steps

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """All that the steps see."""
        return self._whole.seen.modules

    @property
    def executed_steps(self) -> int:
        """How many steps a run of `schedule()` runs: all but the last stage run three times."""
        return 3 * (self.stages - 1) * self.segment_steps + self.last_steps

    @property
    def surroundings_of_a_stage(self) -> int:
        """Bytes of the random streams and buffers that are put back before a stage is undone."""
        taken = self._loop.replay(self._needs).take()
        return sum(held_bytes(tensor) for part in taken for tensor in part)

    def run(
        self,
        observer: Observer | None,
        schedule: Sequence[Action] | None = None,
        make_run: Callable[..., Run] = UndoingRun,
    ) -> None:
        """Forward and backward once, by default by `schedule()`; `observer` is called as by the engine."""
        loop = self._loop
        program = loop.program(self.segment_steps)
        program.outputs.leaves = [leaf.new_zeros(leaf.shape) for leaf in self.output_leaves]
        run = make_run(
            program,
            loop.initial,
            self.schedule() if schedule is None else schedule,
            parameters=Parameters(loop.modules),
            replay=loop.replay(self._needs),
            captured=loop.captured,
        )
        run.gradients.prepare_inputs()
        self.accumulated_bytes = []
        run.observer = None if observer is None else self._recording_gradients(run, observer)
        try:
            outputs, final = run.forward()
            run.cut_off(())
            if observer is None:
                self._learn(outputs, final)
            run.backward(self._output_gradients, self._state_gradients)
        finally:
            run.observer = None  # it knows the run: as a cycle they would keep all gradients

    @property
    def lost(self) -> LostBits | None:
        """What a step loses, of a loop whose segments can be undone."""
        return self._needs.lost

    @property
    def output_shapes(self) -> list[torch.Size]:
        """Shapes of the outputs."""
        return [leaf.shape for leaf in self.output_leaves]

    @property
    def held_bytes(self) -> int:
        """Bytes of the gradients that come in, and of traces, which are there beside every run."""
        given = [*self._output_gradients, *self._state_gradients]
        gradients = sum(held_bytes(gradient) for gradient in given if gradient is not None)
        return gradients + self.trace_bytes

    @property
    def trace_bytes(self) -> int:
        """Bytes of what modules carry over to the next iteration."""
        return sum({id(part): part.trace_bytes for part in _tracing(self._loop)}.values())

    @property
    def lies_across(self) -> bool:
        """Whether a gradient that comes in lies otherwise than row by row, and the caller did not say so."""
        return not self._loop.outputs_transposed and any(
            gradient is not None and not gradient.is_contiguous()
            for gradient in (*self._output_gradients, *self._state_gradients)
        )

    @contextmanager
    def row_by_row(self) -> Iterator[None]:
        """Within the context all gradients that come in lie row by row."""
        before = self._output_gradients, self._state_gradients
        self._output_gradients, self._state_gradients = (
            [None if gradient is None else gradient.contiguous() for gradient in given] for given in before
        )
        try:
            yield
        finally:
            self._output_gradients, self._state_gradients = before

    @property
    def state_gradient_bytes(self) -> int:
        """Bytes of the gradients that may come in for the final state."""
        return sum(held_bytes(gradient) for gradient in self._state_gradients if gradient is not None)

    def surroundings_bytes(self, pieces: Sequence[ActionBytes]) -> int:
        """Copies of streams and buffers that a run holds throughout, out of its observed actions: what is
        live before the first one, and what the backward pass adds when it begins.
        """
        prepared = sum(held_bytes(leaf) for leaf in self.output_leaves) + self._loop.inputs.gradient_bytes
        between = [index for index, piece in enumerate(pieces) if piece.action is None]
        end_of_forward, start_of_backward = pieces[between[1]], pieces[between[2]]
        taken = start_of_backward.before_bytes - end_of_forward.before_bytes
        return pieces[0].before_bytes - prepared + taken

    def _recording_gradients(self, run: Run, observer: Observer) -> Observer:
        def observe(action: TieredAction | None) -> None:
            self.accumulated_bytes.append(run.accumulated_bytes())
            observer(action)

        return observe

    def _learn(self, outputs: list[Tensor], final: Leaves) -> None:
        self.output_leaves = [leaf.new_zeros(()).expand(leaf.shape) for leaf in outputs]
        self._output_gradients = [
            _gradient_like(leaf, transposed=self._loop.outputs_transposed) for leaf in outputs
        ]
        is_detached = self._loop.final_state == "detached"
        self._state_gradients = [None if is_detached else _gradient_like(leaf) for leaf in final]
        self.final_state_bytes = storage_bytes(final, besides=self._loop.initial)


@contextmanager
def without_traces(loop: Loop) -> Iterator[None]:
    """Within the context runs of `loop` leave nothing behind: buffers are copies, streams come back, so does
    what steps write in attributes, and modules that leave other traces see to those.
    """
    with ExitStack() as stack:
        stack.enter_context(recomputing())
        stack.enter_context(unnoted_archives())
        stack.enter_context(untouched(Buffers(loop.seen.modules), loop.streams()))
        stack.enter_context(nothing_written(loop.seen))
        for part in _tracing(loop):
            stack.enter_context(part.without_traces())
        yield


def _tracing(loop: Loop) -> Iterator[LeavesTraces]:
    """The modules of `loop` that leave traces; one that several modules share comes more than once."""
    for module in loop.seen.modules:
        yield from (part for part in module.modules() if isinstance(part, LeavesTraces))


def _gradient_like(leaf: Any, *, transposed: bool = False) -> Tensor | None:
    """What a caller hands in; `transposed`: laid out with the first two dimensions in the other order."""
    if not is_continuous(leaf):
        return None
    if not transposed:
        return torch.ones_like(leaf)
    return leaf.new_ones(leaf.transpose(0, 1).shape).transpose(0, 1)
