"""From the bytes and seconds of a rehearsal's actions to the stages of a chain.

The bytes that an action needs are read against what was live before it; what it leaves behind gives the
sizes of states, tapes and gradients. The plan counts the gradients of the parameters from the start,
although they come to life with the first backward: what the first pass and that backward have to spare
is taken off the last stage, so that the bound stays tight.

All that assumes that the stages use the same parameters, and that each takes the bytes of the rehearsed one
that stands for it. Where they do not, a survey (`executor.probing.survey`) says what the largest takes, and
every stage counts as that: `as_large_as`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from executor.probing.action_costs import ActionBytes
from planner_service.chain import Advance, Backward, Stage, Tape, TieredAction

EMPTY_STAGE = Stage(
    forward_cost=0.0, taped_forward_cost=0.0, backward_cost=0.0, state_bytes=0, tape_bytes=0, gradient_bytes=0
)


@dataclass(frozen=True)
class StageBytes:
    """The stages 1..n of a rehearsal, costs still zero, and the gradient of the initial state."""

    stages: tuple[Stage, ...]
    input_gradient_bytes: int
    first_pass_last: Stage
    """The last stage before there is any gradient."""
    late_bytes: int
    """Gradients that the plan counts from the start, and that live once the backward pass has begun."""


def stage_bytes(
    pieces: Sequence[ActionBytes],
    accumulated: Sequence[int],
    *,
    stages: int,
    final_state_bytes: int,
    backward_only_bytes: int,
) -> StageBytes:
    """The byte sizes of every stage.

    `accumulated[i]` are the bytes of accumulated gradients that were live before piece i;
    `backward_only_bytes` are other gradients that the plan counts from the start, which come from
    outside when backward begins.
    """
    reader = _Reader(stages, max(accumulated), final_state_bytes, backward_only_bytes)
    for piece, before in zip(pieces, accumulated, strict=False):
        reader.read(piece, before)
    return reader.result()


def as_large_as(
    most: Stage, sized: StageBytes, *, final_state_bytes: int, initial_gradient_bytes: int
) -> StageBytes:
    """`sized` with every stage as large as `most`. The last one is taped in the first pass alone, where the
    random streams may be looked at beside it, and no gradient lives.
    """
    workspace = max(most.taped_forward_workspace_bytes, sized.first_pass_last.taped_forward_workspace_bytes)
    first_pass_last = replace(
        most,
        tape_bytes=max(0, most.tape_bytes - final_state_bytes),
        taped_forward_workspace_bytes=workspace,
    )
    last = replace(first_pass_last, taped_forward_workspace_bytes=max(0, workspace - sized.late_bytes))
    return replace(
        sized,
        stages=(*[most] * (len(sized.stages) - 1), last),
        input_gradient_bytes=max(sized.input_gradient_bytes, initial_gradient_bytes),
        first_pass_last=first_pass_last,
    )


def at_worst(most: Stage, shortest: Stage, ratio: int) -> Stage:
    """`most`, the largest stage that was seen, as large as if `ratio` times the largest of the `shortest`
    stages followed on one another: numbers drawn anew next time may put them into one segment.
    """
    fields = ("forward_workspace_bytes", "taped_forward_workspace_bytes", "backward_workspace_bytes")
    workspaces = {name: max(getattr(most, name), getattr(shortest, name)) for name in fields}
    return replace(most, tape_bytes=max(most.tape_bytes, ratio * shortest.tape_bytes), **workspaces)


class _Reader:
    """Follows the actions; knows what each state's gradient takes."""

    def __init__(
        self, stages: int, accumulated_bytes: int, final_state_bytes: int, backward_only_bytes: int
    ) -> None:
        self._last = stages
        self._accumulated_bytes = accumulated_bytes
        self._final_state_bytes = final_state_bytes
        self._backward_only_bytes = backward_only_bytes
        self._stages = dict.fromkeys(range(1, stages + 1), EMPTY_STAGE)
        self._gradients = {stages: 0}
        self._first_pass_last = EMPTY_STAGE

    def read(self, piece: ActionBytes, accumulated: int) -> None:
        """Take in one action's bytes."""
        action = piece.action
        spare = self._accumulated_bytes - accumulated
        if isinstance(action, Advance):
            self._read_advance(piece, action.first, spare)
        elif isinstance(action, Tape):
            self._read_tape(piece, action.first, spare)
        elif isinstance(action, Backward):
            self._read_backward(piece, action.first, spare)

    def _read_advance(self, piece: ActionBytes, index: int, spare: int) -> None:
        stage = self._stages[index]
        state = max(0, piece.after_bytes - piece.before_bytes)
        workspace = piece.peak_bytes - piece.before_bytes - state - spare
        self._stages[index] = replace(
            stage,
            state_bytes=max(stage.state_bytes, state),
            forward_workspace_bytes=max(stage.forward_workspace_bytes, workspace, 0),
        )

    def _read_tape(self, piece: ActionBytes, index: int, spare: int) -> None:
        tape = max(0, piece.after_bytes - piece.before_bytes)
        if index == self._last:  # only ever taped in the first pass
            spare += self._backward_only_bytes
            self._first_pass_last = replace(
                EMPTY_STAGE,
                tape_bytes=max(0, tape - self._final_state_bytes),
                taped_forward_workspace_bytes=piece.peak_bytes - piece.after_bytes,
            )
        workspace = piece.peak_bytes - piece.after_bytes - spare
        self._stages[index] = replace(
            self._stages[index], tape_bytes=tape, taped_forward_workspace_bytes=max(workspace, 0)
        )

    def _read_backward(self, piece: ActionBytes, index: int, spare: int) -> None:
        stage = self._stages[index]
        kept = self._final_state_bytes if index == self._last else 0
        grown = piece.after_bytes - piece.before_bytes - spare
        gradient = max(0, grown + stage.tape_bytes + self._gradients[index] - kept)
        self._gradients[index - 1] = gradient
        workspace = piece.peak_bytes - piece.before_bytes - gradient - spare
        self._stages[index] = replace(stage, backward_workspace_bytes=max(workspace, 0))
        if index == self._last:
            self._stages[index] = _last_stage(self._stages[index], kept, workspace)

    def result(self) -> StageBytes:
        """The stages with their gradients."""
        stages = [
            replace(self._stages[index], gradient_bytes=self._gradients[index])
            for index in range(1, self._last + 1)
        ]
        late_bytes = self._accumulated_bytes + self._backward_only_bytes
        return StageBytes(tuple(stages), self._gradients[0], self._first_pass_last, late_bytes)


def _last_stage(stage: Stage, final_state_bytes: int, backward_workspace_bytes: int) -> Stage:
    """The last stage's tape without the final state, which is counted as static, and without what its
    backward has to spare (a negative workspace): nothing runs between the two.
    """
    tape_bytes = max(0, stage.tape_bytes - final_state_bytes)
    spared = min(max(-backward_workspace_bytes, 0), tape_bytes)
    return replace(
        stage,
        tape_bytes=tape_bytes - spared,
        taped_forward_workspace_bytes=stage.taped_forward_workspace_bytes + spared,
    )


def stage_seconds(
    rounds: Iterable[Sequence[tuple[TieredAction | None, float]]], stages: Sequence[Stage]
) -> tuple[Stage, ...]:
    """`stages` with the least seconds that each action on them took in any round."""
    least: dict[tuple[type, int], float] = {}
    for times in rounds:
        for action, seconds in times:
            if isinstance(action, Advance | Tape | Backward):
                key = (type(action), action.first)
                least[key] = min(least.get(key, seconds), seconds)
    return tuple(
        replace(
            stage,
            forward_cost=least.get((Advance, index), least[(Tape, index)]),
            taped_forward_cost=least[(Tape, index)],
            backward_cost=least[(Backward, index)],
        )
        for index, stage in enumerate(stages, start=1)
    )
