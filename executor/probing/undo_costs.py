"""What undoing the stages of a loop takes: measured on a rehearsal, the archive bounded beforehand.

How many bits a stage loses depends on its gates, which training changes; the plan counts the most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from executor.probing.action_costs import bytes_of_actions, seconds_of_actions
from executor.probing.rehearsal import Rehearsal
from executor.reversal import Archiving, LostBits, passing
from executor.trees import Leaves
from executor.undoing import UndoingRun
from planner_service.chain import Archive, Reversal, Stage, Undo

ROUNDS = 2
"""Runs that are timed: what else a stage costs was measured more often."""


class _BlocksKept(UndoingRun):
    """Archives stay from run to run, one set per stage, and so do their blocks. These are a line of their own
    in every plan: none may come or go while it is measured what else an action takes. They are small, since
    those of all stages are there at once.
    """

    def __init__(self, *given: Any, archives: dict[int, list[Any]], **options: Any) -> None:
        super().__init__(*given, **options)
        self._archives = archives

    def _archive_stage(self, stage: int, leaves: Leaves) -> Leaves:
        archives = self._stretches[-1].archives
        archives.extend(self._archives.get(stage, ()))
        with passing(Archiving(archives, in_small_blocks=True)):
            after = super()._archive_stage(stage, leaves)
        for archive in archives:
            archive.keep_blocks()
        self._archives[stage] = list(archives)
        return after


def with_reversals(
    stages: Sequence[Stage],
    rehearsal: Rehearsal,
    lost: LostBits,
    *,
    device: torch.device,
    input_gradient_bytes: int,
) -> tuple[tuple[Stage, ...], int]:
    """`stages` with what undoing them takes, and the peak of the runs that measured it.

    Archiving a stage needs what advancing it does, which was measured in both passes; the last stage, which
    is never advanced, is archived in the first pass alone.
    """
    archives: dict[int, list[Any]] = {}
    make_run = partial(_BlocksKept, archives=archives)
    run = partial(rehearsal.run, schedule=rehearsal.undoing_schedule(), make_run=make_run)
    timed = [seconds_of_actions(run, device) for _ in range(ROUNDS)]
    pieces, peak, _ = bytes_of_actions(run, device)  # last: the blocks are there
    block_bytes = sum(archive.allocated_bytes for each in archives.values() for archive in each)
    found = list(stages)
    workspaces = [stage.forward_workspace_bytes for stage in stages]
    gradients = [input_gradient_bytes, *(stage.live_gradient_bytes for stage in stages)]
    states = [0, *(stage.state_bytes for stage in stages)]
    accumulated = rehearsal.accumulated_bytes
    for piece, before in zip(pieces, accumulated, strict=False):
        spare = max(accumulated) - before
        if isinstance(piece.action, Archive):
            index = piece.action.first - 1
            workspaces[index] = max(workspaces[index], piece.peak_bytes - piece.after_bytes - spare)
        elif isinstance(piece.action, Undo):
            index, action = piece.action.first - 1, piece.action
            needed = piece.peak_bytes - piece.before_bytes - spare
            bits = lost.archive_bytes(rehearsal.steps_of(index))
            reversal = Reversal(
                archive_bytes=bits + rehearsal.surroundings_of_a_stage,
                undo_cost=min(_seconds_of(action, times) for times in timed),
                undo_workspace_bytes=max(0, needed - states[index] - gradients[index]),
                archive_workspace_bytes=workspaces[index],
            )
            found[index] = replace(found[index], reversal=reversal)
    return tuple(found), peak + block_bytes


def _seconds_of(action: Undo, times: Sequence[tuple[object, float]]) -> float:
    # Actions of different kinds on the same stages are equal tuples.
    return next(seconds for timed, seconds in times if isinstance(timed, Undo) and timed == action)
