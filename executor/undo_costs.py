"""What undoing the stages of a loop takes: measured on a rehearsal, the archive bounded beforehand.

How many bits a stage loses depends on its gates, which training changes; the plan counts the most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from executor.action_costs import bytes_of_actions, seconds_of_actions
from executor.rehearsal import Rehearsal
from executor.reversal import LostBits
from planner_service.chain import Archive, Reversal, Stage, Undo

ROUNDS = 2
"""Runs that are timed: what else a stage costs was measured more often."""


def with_reversals(
    stages: Sequence[Stage],
    rehearsal: Rehearsal,
    lost: LostBits,
    *,
    device: torch.device,
    input_gradient_bytes: int,
) -> tuple[Stage, ...]:
    """`stages` with what undoing them takes; their workspace for an advance covers archiving too."""
    actions = rehearsal.undoing_schedule()
    pieces, _ = bytes_of_actions(lambda observer: rehearsal.run(observer, actions), device)
    accumulated = rehearsal.accumulated_bytes
    timed = [
        seconds_of_actions(lambda observer: rehearsal.run(observer, actions), device) for _ in range(ROUNDS)
    ]
    found = list(stages)
    gradients = [input_gradient_bytes, *(stage.live_gradient_bytes for stage in stages)]
    states = [0, *(stage.state_bytes for stage in stages)]
    for piece, before in zip(pieces, accumulated, strict=False):
        spare = max(accumulated) - before
        if isinstance(piece.action, Archive):
            index = piece.action.first - 1
            workspace = piece.peak_bytes - piece.after_bytes - spare
            found[index] = _covering(found[index], workspace)
        elif isinstance(piece.action, Undo):
            index, action = piece.action.first - 1, piece.action
            needed = piece.peak_bytes - piece.before_bytes - spare
            bits = lost.archive_bytes(rehearsal.steps_of(index))
            reversal = Reversal(
                archive_bytes=bits + rehearsal.surroundings_of_a_stage,
                undo_cost=min(_seconds_of(action, times) for times in timed),
                undo_workspace_bytes=max(0, needed - states[index] - gradients[index]),
            )
            found[index] = replace(found[index], reversal=reversal)
    return tuple(found)


def _covering(stage: Stage, workspace_bytes: int) -> Stage:
    return replace(stage, forward_workspace_bytes=max(stage.forward_workspace_bytes, workspace_bytes))


def _seconds_of(action: Undo, times: Sequence[tuple[object, float]]) -> float:
    # Actions of different kinds on the same stages are equal tuples.
    return next(seconds for timed, seconds in times if isinstance(timed, Undo) and timed == action)
