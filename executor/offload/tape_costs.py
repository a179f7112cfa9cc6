"""What a loop's tapes take where they move to host memory: measured on a rehearsal.

A tape in host memory is to the planner what the lost bits of a reversible layer are to it (`tape_run`): the
stages get a `Reversal`, whose workspaces hold the two tapes that are on the device at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from executor.engine import Observer, Run
from executor.loop import Loop
from executor.offload.host import transfer_seconds
from executor.offload.host_tapes import HostTapes
from executor.offload.layout import storages_of
from executor.offload.slots import HOST, is_pinned, most_slots
from executor.offload.tape_run import HostTapesRun
from executor.offload.tape_storages import Storage, TapeStorages
from executor.probing.action_costs import ActionBytes, bytes_of_actions, seconds_of_actions
from executor.probing.layouts import in_both_layouts
from executor.probing.rehearsal import Rehearsal
from executor.rules.needs import Needs
from executor.stages.live_tape import LiveTape
from executor.stages.states import owned
from executor.trees import Leaves
from planner_service.chain import Action, Archive, Reversal, Stage, TieredAction, Undo

MOST_STAGES = 4
"""The third of four is an inner one whose neighbours are inner ones, or as large."""
ROUNDS = 3
"""Runs that are timed."""


def with_tapes_on_host(
    stages: Sequence[Stage],
    loop: Loop,
    needs: Needs,
    segment_steps: int,
    *,
    input_gradient_bytes: int,
    device_budget_bytes: int,
    host_budget_bytes: int,
) -> tuple[tuple[Stage, ...], HostTapes] | None:
    """`stages` (the first, an inner one, the last; or all, where they are fewer) with what their tapes take
    in host memory, and the room there. None where host memory has no room for the tapes of a rehearsal, or
    nothing of a tape can go; or where two tapes take more than `device_budget_bytes`.
    """
    rehearsal = Rehearsal(loop, needs, segment_steps, most_stages=MOST_STAGES)
    count, device = rehearsal.stages, loop.device
    known = _spread(stages, count)
    slot_bytes = _slot_bytes(rehearsal, device)
    most = most_slots(host_budget_bytes, slot_bytes, rounded=is_pinned(HOST, device))
    if most < count or slot_bytes == 0 or 2 * slot_bytes > device_budget_bytes:
        return None
    tapes = HostTapes(slot_bytes, count, host_budget_bytes)
    bytes_needed = _Bytes(known, input_gradient_bytes, rehearsal, tapes, device)
    seconds = _seconds(known, rehearsal, tapes, device)
    found = tuple(
        replace(
            stage,
            reversal=Reversal(
                archive_bytes=bytes_needed.residues[index],
                undo_cost=seconds[index][1],
                undo_workspace_bytes=bytes_needed.undo_workspace(index),
                archive_cost=seconds[index][0],
                archive_workspace_bytes=bytes_needed.archive_workspace(index),
            ),
        )
        for index, stage in enumerate(known)
    )
    return _gathered(found, len(stages)), replace(tapes, most=most)


def _spread(stages: Sequence[Stage], count: int) -> list[Stage]:
    """The stages of a rehearsal of `count` segments, out of those of one of at most three."""
    inner = stages[len(stages) // 2]
    if count <= len(stages):
        return list(stages)
    return [stages[0], *[inner] * (count - 2), stages[-1]]


def _gathered(found: Sequence[Stage], count: int) -> tuple[Stage, ...]:
    """`count` of them: the first, the last but one, the last."""
    return tuple(found) if count >= len(found) else (found[0], found[-2], found[-1])


def schedule(count: int) -> list[Action]:
    """All stages archived, then all undone."""
    return [Archive(1, count), Undo(count, 1)]


def _slot_bytes(rehearsal: Rehearsal, device: torch.device) -> int:
    """The most that leaves the device of a stage's tape, in bytes: counted on tapes that stay."""
    sizes: list[int] = []
    rehearsal.run(None, None, partial(_CountingRun, device=device, sizes=sizes))
    return max(sizes)


class _CountingRun(Run):
    """Adds to `sizes` what of each of its tapes could leave the device, in bytes."""

    def __init__(self, *arguments: Any, device: torch.device, sizes: list[int], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._device, self._sizes = device, sizes
        self._kept = storages_of(self.held_throughout())

    def _tape_stage(self, stage: int, leaves: Leaves) -> LiveTape:
        storages = TapeStorages(self._kept, self._device)
        with storages.collected():
            tape = super()._tape_stage(stage, leaves)
        # As at the end of a stretch, where what the state was a view of goes too; and after another tape,
        # where the state that enters is a view like the one that comes out.
        leaving = storages.leaving(besides=storages_of(owned(tape.state.leaves)))
        entering = _sizes_of(leaves)
        own = sum(each.size_bytes for each in leaving if each.address not in entering)
        self._sizes.append(own + max(sum(entering.values()), sum(_sizes_of(tape.state.leaves).values())))
        return tape


def _sizes_of(leaves: Leaves) -> dict[int, int]:
    """Bytes of the storages of a state, by address."""
    storages = [Storage.of(leaf) for leaf in leaves if isinstance(leaf, Tensor)]
    return {each.address: each.size_bytes for each in storages}


def _run(
    observer: Observer,
    *,
    rehearsal: Rehearsal,
    tapes: HostTapes,
    device: torch.device,
    settled: bool = False,
) -> None:
    make = partial(HostTapesRun, host_tapes=tapes, device=device, by_stage=True, settled=settled)
    rehearsal.run(observer, schedule(rehearsal.stages), make)


class _Bytes:
    """The bytes of a rehearsal, stage by stage, from 0."""

    def __init__(
        self,
        stages: Sequence[Stage],
        input_gradient_bytes: int,
        rehearsal: Rehearsal,
        tapes: HostTapes,
        device: torch.device,
    ) -> None:
        self._states = [0, *(stage.state_bytes for stage in stages)]
        self._gradients = [input_gradient_bytes, *(stage.live_gradient_bytes for stage in stages)]
        self._final_state_bytes = rehearsal.final_state_bytes
        """Counted as static: the last stage's state is that."""
        run = partial(_run, rehearsal=rehearsal, tapes=tapes, device=device)
        settled = bytes_of_actions(partial(run, settled=True), device).pieces
        self.residues = self._residues(settled)
        """What of each tape stays on the device."""
        pieces = in_both_layouts(rehearsal, partial(bytes_of_actions, run, device)).pieces
        accumulated = rehearsal.accumulated_bytes
        self._archives, self._undos = _by_stage(pieces, Archive), _by_stage(pieces, Undo)
        self._before_archive = next(p.before_bytes for p in pieces if isinstance(p.action, Archive))
        undo = next(index for index, p in enumerate(pieces) if isinstance(p.action, Undo))
        self._before_undo = pieces[undo].before_bytes
        self._spare = max(accumulated) - accumulated[undo]

    def _residues(self, pieces: Sequence[ActionBytes]) -> list[int]:
        """Neighbours hold states of the same layout, so that their difference is what stayed of one tape."""
        archives, count = _by_stage(pieces, Archive), len(self._states) - 1
        before = [archives[0].before_bytes, *(archives[index].after_bytes for index in range(count))]
        grown = [after - previous for previous, after in pairwise(before)]
        if count > 1:
            grown[0] -= self._states[1]
            grown[-1] += self._states[count - 1]
        grown[-1] -= self._states[count] + self._final_state_bytes
        return [max(0, size) for size in grown]

    def archive_workspace(self, index: int) -> int:
        """What taping the stage needs, the tape before it included."""
        held = sum(self.residues[: index + 1]) + self._states[index + 1]
        held += self._states[index] if index else 0
        held += self._final_state_bytes if index == len(self._states) - 2 else 0
        return max(0, self._archives[index].peak_bytes - self._before_archive - held)

    def undo_workspace(self, index: int) -> int:
        """What reversing the stage needs, its tape and the next one included, beyond totals of gradients."""
        last = len(self._states) - 1
        stays = (
            self._before_undo - self._states[last] - self._gradients[last] - sum(self.residues[index + 1 :])
        )
        states = self._states[index + 1] + self._states[index]
        gradients = self._gradients[index + 1] + self._gradients[index]
        return max(0, self._undos[index].peak_bytes - self._spare - stays - states - gradients)


def _by_stage(pieces: Sequence[ActionBytes], kind: type[Archive] | type[Undo]) -> list[ActionBytes]:
    """The pieces of the stages, in the order of the stages; the action as a whole comes before its first."""
    found = {
        p.action.first: p for p in pieces if isinstance(p.action, kind) and p.action.first == p.action.last
    }
    return [found[stage] for stage in sorted(found)]


def _seconds(
    stages: Sequence[Stage], rehearsal: Rehearsal, tapes: HostTapes, device: torch.device
) -> list[tuple[float, float]]:
    """(archive, undo) of each stage: what was measured, copies included.

    On CUDA a clock waits for what was issued before it: a read beside the stage that is reversed, as in a
    run; but the write of a tape by itself, where in a run it goes on beside the next stage.
    """
    run = partial(_run, rehearsal=rehearsal, tapes=tapes, device=device)
    rounds = [seconds_of_actions(run, device) for _ in range(ROUNDS)]
    write = transfer_seconds(tapes.slot_bytes, device)[0] if device.type == "cuda" else 0.0
    archives = [_least(rounds, Archive(stage, stage)) for stage in range(1, len(stages) + 1)]
    undos = [_least(rounds, Undo(stage, stage)) for stage in range(1, len(stages) + 1)]
    return [(max(archive - write, write), undo) for archive, undo in zip(archives, undos, strict=True)]


def _least(rounds: Sequence[Sequence[tuple[TieredAction | None, float]]], wanted: Archive | Undo) -> float:
    # Actions of different kinds on the same stages are equal tuples; the action as a whole comes first.
    return min(
        [seconds for action, seconds in times if type(action) is type(wanted) and action == wanted][-1]
        for times in rounds
    )
