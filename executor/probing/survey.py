"""A survey: every stage of a loop advanced, taped and reversed once, from the first to the last.

A rehearsal looks at three stages. Where steps differ (a module that is used at some steps only, a part of the
state whose gradient comes and goes), these do not tell what the others take. A survey looks at all of them;
it holds two states and one tape at a time, and takes as long as an iteration or two.

Gradients come to life in another order than in a run: all totals are there from the start, and every
floating tensor of a state has a gradient. So what is measured is the most that a stage can take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from executor.engine import Observer, Run
from executor.memory.sizes import storage_bytes
from executor.probing.action_costs import ActionBytes, bytes_of_actions
from executor.probing.stage_costs import EMPTY_STAGE
from executor.rules.captures import without_hooks
from executor.rules.outgrowth import graph_bytes
from executor.stages.live_tape import LiveTape
from executor.stages.states import StoredState
from executor.surroundings.buffers import Buffers
from executor.trees import is_continuous
from executor.undoing import UndoingRun
from planner_service.chain import Advance, Backward, Stage, Tape

STAGES_AT_ONCE = 50
"""Under one recording: those of long loops would not fit into memory."""
_FIELDS = (
    "state_bytes",
    "tape_bytes",
    "gradient_bytes",
    "forward_workspace_bytes",
    "taped_forward_workspace_bytes",
    "backward_workspace_bytes",
)


class Surveyed(NamedTuple):
    """What a survey found."""

    most: Stage
    """Field by field the largest of all stages; its tape holds the state after it, its costs are zero."""
    is_uniform: bool
    """Whether all stages use the same parameters and captured tensors, and all but the first and the last,
    which may be smaller, take the same bytes."""
    peak_bytes: int
    """What the survey took."""
    left_bytes: tuple[int, ...]
    """What was left after each recording, besides state, gradients and buffers, and was not there before."""
    graph_bytes: int
    """The largest graph of a stage (`executor.rules.outgrowth`)."""
    kept_bytes: int = 0
    """What the stages keep each for itself (`executor.probing.left_behind`)."""


class _Marking(Run):
    """A run that can tell which totals of gradients were added to."""

    def _marks(self) -> list[tuple[int, int] | None]:
        """For every parameter and captured tensor, identity and version of the total of its gradients: they
        change when something is added. None where there is no total yet.
        """
        totals = [*(shadow.grad for shadow in self.parameters.shadows), *self.gradients.captured]
        return [None if total is None else (id(total), total._version) for total in totals]

    def _prepare_sums(self) -> None:
        """Make the totals of all parameters now. The first stage that is reversed would make them, used or
        not, and each would seem to be used by it.
        """
        if self._renews_parameters and self.parameters.shadows:
            self.parameters.add_up(())


@dataclass
class Gaps:
    """Gradients that did not come in some stage of a run."""

    in_totals: bool = False
    """Of a parameter or captured tensor."""
    in_states: bool = False
    """Of a floating part of the state before an inner stage."""


class Watched(_Marking, UndoingRun):
    """A run that notes which gradients did not come."""

    def __init__(self, *given: Any, gaps: Gaps, **options: Any) -> None:
        super().__init__(*given, **options)
        self._gaps = gaps

    def _backward_stage(self, tape: LiveTape) -> None:
        if not any(self._marks()):
            self._prepare_sums()
        before = self._marks()
        super()._backward_stage(tape)
        totals = zip(before, self._marks(), strict=True)
        state = [leaf for leaf in tape.state_leaves if isinstance(leaf, Tensor) and leaf.requires_grad]
        self._gaps.in_totals |= any(one == other for one, other in totals)
        self._gaps.in_states |= tape.stage > 1 and any(leaf.grad is None for leaf in state)


class Survey(_Marking):
    """A run that reverses every stage at once. Made without a schedule, and not used again."""

    def measured(
        self, output_gradients: Sequence[Tensor | None], buffers: Buffers, device: torch.device
    ) -> Surveyed:
        """Run all stages; see `Surveyed`. The program's outputs must have been allocated; `buffers` are all
        that steps may replace.
        """
        self.gradients.outputs = list(output_gradients)
        self._checkpoints[0] = StoredState(self.initial, self._replay.take())
        self._runs_again = True  # nobody changes anything in between
        self.gradients.prepare_inputs()
        found: list[_Reversed] = []
        peak_bytes, left = 0, list[int]()
        with torch.no_grad(), self.parameters.swapped(), without_hooks(self.captured):
            self._prepare_all_totals()
            for first in range(1, self.program.length + 1, STAGES_AT_ONCE):
                older = (self._checkpoints[first - 1], *self.program.outputs.leaves)  # not freed meanwhile
                run = partial(self._run_stages, first, min(first + STAGES_AT_ONCE - 1, self.program.length))
                gradients: list[_Gradients] = []
                buffers_before = buffers.current()
                pieces, peak, left_bytes = bytes_of_actions(partial(run, gradients), device)
                left.append(left_bytes - self._carried_bytes(buffers.current(), buffers_before))
                del older
                found += zip(_stages(pieces, gradients), gradients, strict=True)
                peak_bytes = max(peak_bytes, peak)
        self.release()
        stages = [stage for stage, _ in found]
        is_uniform = len({gradients.used for _, gradients in found}) == 1 and _are_alike(stages)
        most_graph_bytes = max(gradients.graph_bytes for _, gradients in found)
        return Surveyed(_most(stages), is_uniform, peak_bytes, tuple(left), most_graph_bytes)

    def _carried_bytes(self, buffers: Sequence[Tensor], before: Sequence[Tensor]) -> int:
        """Of what goes on to the next stage: the state, its surroundings and gradient, replaced buffers."""
        states = (leaf for state in self._checkpoints.values() for leaf in _tensors_of(state))
        return storage_bytes([*states, *self.gradients.state, *buffers], besides=before)

    def _prepare_all_totals(self) -> None:
        self._prepare_sums()
        for shadow in self.parameters.shadows:
            if shadow.grad is None:
                shadow.grad = torch.zeros_like(shadow, requires_grad=False)
        self.gradients.captured = [torch.zeros_like(each, requires_grad=False) for each in self.captured]

    def _run_stages(self, first: int, last: int, gradients: list[_Gradients], observer: Observer) -> None:
        for stage in range(first, last + 1):
            self._recomputing = False
            observer(Advance(stage, stage))
            self._advance(stage, stage)
            self._recomputing = True
            observer(Tape(stage, stage))
            self._tape(stage, stage)
            observer(None)
            gradients.append(self._reverse(stage, observer))
            observer(None)
            del self._checkpoints[stage - 1]

    def _reverse(self, stage: int, observer: Observer) -> _Gradients:
        before, of_graph = self._marks(), graph_bytes(self._tapes[-1].ends())
        self.gradients.state = [_ones(leaf) for leaf in self._tapes[-1].after]
        self.gradients.at = stage
        after_bytes = storage_bytes(self.gradients.state)
        observer(Backward(stage, stage))
        self._backward(stage, stage)
        before_bytes = storage_bytes(self.gradients.of_state())
        used = tuple(one != other for one, other in zip(before, self._marks(), strict=True))
        return _Gradients(after_bytes, before_bytes, used, of_graph)


class _Gradients(NamedTuple):
    """Of one stage."""

    after_bytes: int
    """Of the state after it."""
    before_bytes: int
    """Of the state before it."""
    used: tuple[bool, ...]
    """Whether it gave each parameter and captured tensor a gradient."""
    graph_bytes: int
    """Of the graph that they came through."""


_Reversed = tuple[Stage, _Gradients]


def _tensors_of(state: StoredState) -> list[Any]:
    return [*state.leaves, *state.surroundings.streams, *state.surroundings.buffers]


def _ones(leaf: Any) -> Tensor | None:
    is_differentiated = is_continuous(leaf)
    return torch.ones_like(leaf, requires_grad=False) if is_differentiated else None


def _stages(pieces: Sequence[ActionBytes], found: Sequence[_Gradients]) -> list[Stage]:
    """The stages of one recording."""
    advances = [piece for piece in pieces if isinstance(piece.action, Advance)]
    tapes = [piece for piece in pieces if isinstance(piece.action, Tape)]
    backwards = [piece for piece in pieces if isinstance(piece.action, Backward)]
    return [
        replace(
            EMPTY_STAGE,
            state_bytes=max(0, advance.after_bytes - advance.before_bytes),
            tape_bytes=max(0, tape.after_bytes - tape.before_bytes),
            gradient_bytes=max(gradients.after_bytes, gradients.before_bytes),
            forward_workspace_bytes=advance.peak_bytes - advance.after_bytes,
            taped_forward_workspace_bytes=tape.peak_bytes - tape.after_bytes,
            backward_workspace_bytes=max(
                0, backward.peak_bytes - backward.before_bytes - gradients.before_bytes
            ),
        )
        for advance, tape, backward, gradients in zip(advances, tapes, backwards, found, strict=True)
    ]


def _most(stages: Sequence[Stage]) -> Stage:
    return replace(EMPTY_STAGE, **{name: max(getattr(each, name) for each in stages) for name in _FIELDS})


def _are_alike(stages: Sequence[Stage]) -> bool:
    inner = set(stages[1:-1])
    return len(inner) <= 1 and not any(exceeds(stages[0], each) for each in inner)


def exceeds(first: Stage, inner: Stage) -> bool:
    """Whether the first stage keeps or needs more than an inner one, which meets a state with a gradient."""
    return any(one > other for one, other in zip(_needed(first), _needed(inner), strict=True))


def _needed(stage: Stage) -> tuple[int, ...]:
    """Taping is seen as a whole: without a gradient of its state the first stage keeps less of what that
    takes, and has the more of it in its workspace.
    """
    taping_bytes = stage.tape_bytes + stage.taped_forward_workspace_bytes
    return stage.tape_bytes, stage.forward_workspace_bytes, taping_bytes
