"""What undoing the stages of a loop takes: measured on a rehearsal, the archive bounded beforehand.

How many bits a stage loses depends on its gates, which training changes; the plan counts the most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from executor.probing.action_costs import ActionBytes, bytes_of_actions, seconds_of_actions
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
    pieces, peak_bytes, _ = bytes_of_actions(run, device)  # last: the blocks are there
    block_bytes = sum(archive.allocated_bytes for each in archives.values() for archive in each)
    archiving, undoing = _needed_bytes(pieces, rehearsal.accumulated_bytes)
    reversals = []
    state_bytes, gradient_bytes = 0, input_gradient_bytes  # of the state before the stage
    for index, stage in enumerate(stages):
        lost_bytes = lost.archive_bytes(rehearsal.steps_of(index)) + rehearsal.surroundings_of_a_stage
        undo = Undo(index + 1, index + 1)
        reversal = Reversal(
            archive_bytes=lost_bytes,
            undo_cost=min(_seconds_of(undo, times) for times in timed),
            undo_workspace_bytes=max(0, undoing[index + 1] - state_bytes - gradient_bytes),
            archive_workspace_bytes=max(stage.forward_workspace_bytes, archiving[index + 1]),
        )
        reversals.append(replace(stage, reversal=reversal))
        state_bytes, gradient_bytes = stage.state_bytes, stage.live_gradient_bytes
    return tuple(reversals), peak_bytes + block_bytes


def _needed_bytes(
    pieces: Sequence[ActionBytes], accumulated: Sequence[int]
) -> tuple[dict[int, int], dict[int, int]]:
    """By stage, what archiving it takes beyond what it leaves, and undoing it beyond what was there.

    `accumulated[i]` bytes of gradients were live before piece i. The plan counts all of them from the start,
    so what had not come yet is taken off.
    """
    archiving: dict[int, int] = {}
    undoing: dict[int, int] = {}
    for piece, before_bytes in zip(pieces, accumulated, strict=False):
        counted_bytes = max(accumulated) - before_bytes
        if isinstance(piece.action, Archive):
            archiving[piece.action.first] = piece.peak_bytes - piece.after_bytes - counted_bytes
        elif isinstance(piece.action, Undo):
            undoing[piece.action.first] = piece.peak_bytes - piece.before_bytes - counted_bytes
    return archiving, undoing


def _seconds_of(action: Undo, times: Sequence[tuple[object, float]]) -> float:
    # Actions of different kinds on the same stages are equal tuples.
    return next(seconds for timed, seconds in times if isinstance(timed, Undo) and timed == action)
