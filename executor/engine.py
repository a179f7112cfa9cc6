"""Interprets a schedule: the only place that runs steps for the tape and calls backward.

One autograd function stands for the whole unrolled loop. Its forward interprets the actions up to the
first backward, in which every step runs for the first time; its backward interprets the rest. Each tape
is a small graph of its own, from detached leaves (the input state, the slice of the inputs, the shadow
parameters) to the output state and outputs; an inner `torch.autograd.backward` reverses it.

What is alive is what docs/memory_model.md charges: a checkpoint until its `free`, a tape with its input
state by reference, one gradient of a state, and whatever the running action needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Variable

from executor.errors import GradientLost, ModifiedBetweenPasses, PlanMismatch
from executor.memory.sizes import storage_addresses, storage_bytes
from executor.replay import Replay, state_only
from executor.reversal import passing
from executor.rules.captures import require_no_captures, sequence_number, without_hooks
from executor.rules.cycles import collected, take_apart
from executor.rules.outgrowth import Outgrowth
from executor.stages.gradients import Gradients
from executor.stages.live_tape import LiveTape, added
from executor.stages.parameters import Parameters
from executor.stages.program import Program
from executor.stages.states import StoredState, leaf_of, owned, raise_mutated
from executor.trees import Leaves, detached, versions_of
from planner_service.chain import Advance, Archive, Backward, Free, Tape, TieredAction, Undo
from planner_service.chain.tiers_actions import describe

Observer = Callable[[TieredAction | None], None]
"""Called before each action, and with None where a pass begins and ends."""

_run_backward = Variable._execution_engine.run_backward
"""`torch.autograd.backward` (tensors, gradients, keep graph, create graph, inputs, allow unreachable,
accumulate) without its checks: those cost more than a small segment, and import a symbolic algebra."""


class Run:
    """One call: a program, the initial state's leaves, and the schedule that is being interpreted.

    Raises PlanMismatch when the schedule does not fit the program or breaks the rules.
    """

    def __init__(
        self,
        program: Program,
        initial: Leaves,
        schedule: Iterable[TieredAction],
        *,
        parameters: Parameters,
        replay: Replay,
        captured: Sequence[Tensor] = (),
        observer: Observer | None = None,
        outgrowth: Outgrowth | None = None,
    ) -> None:
        self.program = program
        self.parameters = parameters
        self.captured = tuple(captured)
        self.initial = initial
        self._schedule: Iterator[TieredAction] = iter(schedule)
        self._replay = replay
        self.observer = observer
        self._outgrowth = outgrowth
        self._pending: TieredAction | None = None
        self._checkpoints: dict[int, StoredState] = {}
        self._tapes: list[LiveTape] = []
        self.gradients = Gradients(program, len(self.captured))
        self._reached = 0
        self._versions: list[int] = []
        self._recomputing = self._runs_again = False
        loops = not program.is_segment and program.segment_steps > 1
        is_plain = not (captured or parameters.has_sparse_gradients or replay.needs_one_leaf)
        self._renews_parameters = loops and is_plain
        self._held = storage_addresses(self.held_throughout())

    # Forward

    def forward(self) -> tuple[list[Tensor], Leaves]:
        """Run every step once; return the reduced outputs' leaves and the final state's, detached."""
        self._fingerprint = self._replay.fingerprint()
        self._checkpoints[0] = StoredState(self.initial, self._replay.take())
        try:
            with torch.no_grad(), self.parameters.swapped(), state_only(False), passing(None):
                self._interpret(until_backward=True)
            self._require_first_pass_complete()
            self._replay.remember(runs_again=len(self._tapes) < self.program.length)
        except BaseException:
            self._replay.restore(self._checkpoints[0].surroundings)
            self.release()
            raise
        self.parameters.remember_versions()
        self._versions = versions_of(self._given())
        return self.program.outputs.leaves, self._state(self.program.length).leaves

    def _require_first_pass_complete(self) -> None:
        length = self.program.length
        is_taped = bool(self._tapes) and self._tapes[-1].stage == length
        if self._reached != length or not (is_taped or isinstance(self._pending, Undo)):
            raise PlanMismatch(
                f"the schedule ran {self._reached} stages before its first backward, which needs a tape of "
                f"stage {length}: it was made for another number of steps"
            )

    def _given(self) -> Leaves:
        return (*self.initial, *self.program.inputs.leaves, *self.captured)

    def cut_off(self, differentiable: Sequence[Tensor]) -> None:
        """What steps left behind belongs to a tape, and is no way to the `differentiable` tensors: where a
        loss depends on it, backward raises GradientLost.
        """
        self._replay.cut_off(differentiable)

    def _require_untouched(self) -> None:
        """Raise GradientLost where a gradient reached a tape by another way than its outputs."""
        shadows = self.parameters.shadows
        ends = (each for tape in self._tapes for each in (*tape.state_leaves, *tape.slices, *tape.parameters))
        if any(
            isinstance(each, Tensor) and each.is_leaf and each.grad is not None for each in (*shadows, *ends)
        ):
            raise GradientLost

    # Backward

    def backward(
        self, output_gradients: Sequence[Tensor | None], state_gradients: Sequence[Tensor | None]
    ) -> None:
        """Interpret the rest of the schedule; afterwards `gradients` and `parameters` have the results."""
        self._require_untouched()
        self.parameters.require_unchanged()
        if self._versions != versions_of(self._given()):
            raise ModifiedBetweenPasses(
                "an input, the initial state or a captured tensor was changed in place between forward and "
                "backward: recomputation would read other values; pass a clone"
            )
        self.gradients.come_in(output_gradients, state_gradients)
        self._recomputing = True
        with ExitStack() as stack:
            stack.callback(self.release)
            if self._outgrowth is not None:
                stack.callback(self._outgrowth.conclude)
            stack.enter_context(torch.no_grad())
            stack.enter_context(self._replay.isolated())
            stack.enter_context(self.parameters.swapped())
            stack.enter_context(passing(None))
            stack.enter_context(without_hooks(self.captured))
            self._interpret(until_backward=False)
            if self.gradients.at:
                raise PlanMismatch(f"the schedule ends with stages 1..{self.gradients.at} not reversed")

    def accumulated_bytes(self) -> int:
        """Bytes of the gradients of parameters and captured tensors that are live."""
        gradients = [*(shadow.grad for shadow in self.parameters.shadows), *self.gradients.captured]
        return storage_bytes(gradients)

    def held_throughout(self) -> list[Any]:
        """What the caller holds anyway: parameters, buffers that steps leave alone, inputs, initial state,
        captured tensors.
        """
        parameters = [*self.parameters.shadows, *self.parameters.frozen]
        given = [*self.initial, *self.program.inputs.leaves, *self.captured]
        return [*parameters, *self._replay.left_alone(), *given]

    def release(self) -> None:
        """Drop every state, tape and gradient of an output that is still held."""
        self._checkpoints.clear()
        self._tapes.clear()
        self.gradients.outputs = []
        self.program.outputs.leaves = []

    # Actions

    def _interpret(self, *, until_backward: bool) -> None:
        self._replay.forget_cached()
        self._observe(None)
        action = self._pending if self._pending is not None else next(self._schedule, None)
        while action is not None and not (until_backward and isinstance(action, Backward | Undo)):
            self._observe(action)
            self._execute(action)
            action = next(self._schedule, None)
        self._pending = action
        if until_backward:
            self._replay.require_fingerprint(self._fingerprint)
        self._observe(None)

    def _observe(self, action: TieredAction | None) -> None:
        if self.observer is not None:
            self.observer(action)

    def _execute(self, action: TieredAction) -> None:
        if isinstance(action, Tape | Advance):
            with self._replay.running_again() if self._recomputing else nullcontext():
                self._run_steps(action)
        elif isinstance(action, Backward):
            self._backward(action.first, action.last)
        elif isinstance(action, Archive):
            self._archive(action.first, action.last)
        elif isinstance(action, Undo):
            self._undo(action.first, action.last)
        elif not isinstance(action, Free):
            raise PlanMismatch(f"{describe(action)} needs tiers, which this plan does not name")
        elif self._checkpoints.pop(action.state, None) is None:
            raise PlanMismatch(f"{describe(action)}: x_{action.state} is not a checkpoint")

    def _run_steps(self, action: Tape | Advance) -> None:
        if isinstance(action, Tape):
            self._tape(action.first, action.last)
        else:
            self._advance(action.first, action.last)

    def _archive(self, first: int, last: int) -> None:
        """Runs that can undo stages say how: by what layers lose, or by tapes in host memory."""
        raise PlanMismatch(f"stages {first}..{last} are to be archived, and nothing says how they are undone")

    def _undo(self, first: int, last: int) -> None:
        raise PlanMismatch(f"stages {first}..{last} are to be undone, and nothing says how")

    def _enter(self, first: int, last: int) -> Leaves:
        """The leaves of x_{first-1}; streams and buffers are set for stage `first`."""
        if not 1 <= first <= last <= self.program.length:
            raise PlanMismatch(f"stages {first}..{last} are outside 1..{self.program.length}")
        state = self._state(first - 1)
        if self._recomputing:
            self._before_running_again()
            if self._replay.is_active:
                self._replay.rewind(state.surroundings)
        elif first != self._reached + 1:
            raise PlanMismatch(f"stage {first} would run twice before the first backward")
        return state.leaves

    def _before_running_again(self) -> None:
        """Once: what steps read besides their state and inputs must be what the forward pass read."""
        if not self._runs_again:
            self.parameters.require_frozen_unchanged()
            self._replay.require_unchanged()
            self._runs_again = True

    def _state(self, index: int) -> StoredState:
        stored = self._checkpoints.get(index)
        if stored is not None:
            return stored
        for tape in reversed(self._tapes):
            if tape.stage == index:
                state: StoredState = tape.state
                return state
        raise PlanMismatch(f"x_{index} is neither stored nor the output of a live tape")

    def _advance(self, first: int, last: int) -> None:
        leaves = self._enter(first, last)
        if self._recomputing:
            with state_only():
                for stage in range(first, last + 1):
                    leaves = self._advance_stage(stage, leaves)
        else:
            for stage in range(first, last + 1):
                leaves = self._advance_stage(stage, leaves)
            self._reached = last
        self._replay.forget_cached()
        self._checkpoints[last] = StoredState(owned(leaves), self._replay.take())

    def _advance_stage(self, stage: int, leaves: Leaves) -> Leaves:
        with_graphs = self._replay.advances_with_graphs
        if with_graphs:
            leaves = tuple(leaf_of(leaf, stage > 1) for leaf in leaves)
        elif stage == 1:  # a hook that a step registers on it is not to reach the caller's tensor
            leaves = detached(leaves)
        versions = self._versions_given(leaves)
        emit = None if self._recomputing else self.program.outputs.write_block
        with self._without_cycles(), torch.enable_grad() if with_graphs else nullcontext():
            slices = self._slices(stage, differentiated=with_graphs)
            after = self.program.run(stage, leaves, slices, emit, held=self._held, is_taped=False)
        if versions != self._versions_given(leaves):
            raise_mutated(stage)
        return after

    def _without_cycles(self) -> AbstractContextManager[None]:
        """After the context what steps left in reference cycles is gone."""
        return collected() if self._replay.leaves_cycles else nullcontext()

    def _versions_given(self, leaves: Sequence[Any]) -> list[int]:
        """Of a stage's input state, and of all inputs, of which each stage gets views."""
        return versions_of((*leaves, *self.program.inputs.leaves))

    def _slices(self, stage: int, *, differentiated: bool) -> list[Any]:
        return self.program.inputs.slices(*self.program.steps_of(stage), differentiated=differentiated)

    def _tape(self, first: int, last: int) -> None:
        leaves = self._enter(first, last)
        for stage in range(first, last + 1):
            tape = self._tape_stage(stage, leaves)
            self._tapes.append(tape)
            leaves = tape.state.leaves
        if not self._recomputing:
            self._reached = last

    def _tape_stage(self, stage: int, leaves: Leaves) -> LiveTape:
        if self._outgrowth is not None:
            self._outgrowth.begin()
        state_leaves = self._entering(stage, leaves)
        slices = self._slices(stage, differentiated=True)
        blocks: list[Leaves] = []
        renewed: list[Tensor] = []
        renew = (lambda: renewed.extend(self.parameters.renewed())) if self._renews_parameters else None
        is_checked = self.program.sees_undeclared or self._is_first_tape()
        since = sequence_number() if is_checked else None
        versions = self._versions_given(state_leaves)
        with self._without_cycles(), torch.enable_grad():
            after = self.program.run(
                stage,
                tuple(state_leaves),
                slices,
                lambda _first, _count, block: blocks.append(block),
                renew,
                self._held,
            )
            if stage == self.program.length:  # handed to the caller, who should not hold the tape with it
                after = owned(after)
        self._replay.forget_cached()
        if versions != self._versions_given(state_leaves):
            raise_mutated(stage)
        if not self._recomputing:
            self.program.outputs.write(*self.program.steps_of(stage), blocks)
        state = StoredState(detached(after), self._replay.take())
        tape = LiveTape(stage, state_leaves, slices, after, blocks, state, renewed)
        if since is not None:
            self._require_no_captures(tape, since)
        if self._outgrowth is not None:
            self._outgrowth.taped(stage, tape.ends())
        return tape

    def _is_first_tape(self) -> bool:
        return not (self._recomputing or self._tapes)

    def _entering(self, stage: int, leaves: Leaves) -> list[Any]:
        """The input state of a stage that is taped, as its graph takes it: leaves, with their gradients."""
        return [leaf_of(leaf, stage > 1) for leaf in leaves]

    def _require_no_captures(self, tape: LiveTape, since: int) -> None:
        declared = [leaf for leaf in tape.state_leaves if isinstance(leaf, Tensor)]
        declared += [tape.slices[position] for position in self.program.inputs.differentiable]
        declared += [*self.parameters.shadows, *tape.parameters, *self.captured]
        own = self._replay.makes_leaves
        require_no_captures(tape.ends(), declared, since, self.program.function, makes_leaves=own)

    def _backward(self, first: int, last: int) -> None:
        self.gradients.require_at(first)
        for stage in range(first, last - 1, -1):
            if not self._tapes or self._tapes[-1].stage != stage:
                raise PlanMismatch(f"stage {stage} is not taped")
            self._backward_stage(self._tapes.pop())

    def _backward_stage(self, tape: LiveTape) -> None:
        if self._outgrowth is not None:
            self._outgrowth.reversed(tape.stage)
        roots, gradients = self.gradients.roots(tape)
        if self._replay.leaves_cycles:
            take_apart(tape.ends(), self.captured, but_for=roots)
        tape = tape.without_ends()  # graphs that no gradient enters would keep what they saved
        if tape.parameters:
            self.parameters.add_up(tape.parameters)
        if roots and self.captured:
            self._accumulate(roots, gradients, tape.leaves(self.program.inputs.differentiable))
        elif roots:
            _run_backward(tuple(roots), tuple(gradients), False, False, (), True, True)
            self.parameters.own_gradients()
        self.gradients.take(tape)
        if self._replay.leaves_cycles:
            take_apart(roots, self.captured)

    def _accumulate(self, roots: list[Any], gradients: list[Tensor], leaves: list[Any]) -> None:
        """With captured tensors: gradients stop at them, whatever graph they come from, and their own
        hooks and `.grad` stay untouched. A total is memory of its own: autograd gives the same tensor to all
        that were added up, or the one that it was called with.
        """
        shadows = self.parameters.shadows
        inputs = [*(getattr(leaf, "edge", leaf) for leaf in leaves), *shadows, *self.captured]
        found = iter(torch.autograd.grad(roots, inputs, gradients, allow_unused=True))
        for leaf in leaves:
            leaf.grad = next(found)
        for shadow in shadows:
            shadow.grad = added(shadow.grad, next(found))
        totals = self.gradients.captured
        self.gradients.captured = [added(total, next(found)) for total in totals]
