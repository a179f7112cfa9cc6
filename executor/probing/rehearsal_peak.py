"""What a rehearsal of longer segments will take at most, out of those of shorter ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from executor.loop import Loop
from executor.probing.static_lines import StaticLine
from planner_service.chain import Stage, segment_sizes

MOST_STAGES = 3
"""Of a rehearsal: the first, an inner one, and the last."""


class Probed(Protocol):
    """What is known of segments of one length."""

    @property
    def segment_steps(self) -> int:
        """Steps of a segment."""

    @property
    def inner(self) -> Stage:
        """An inner stage."""

    @property
    def rehearsal_peak_bytes(self) -> int:
        """What measuring them took."""


def expected_peak_bytes(
    loop: Loop, static: Sequence[StaticLine], probes: Sequence[Probed], segment_steps: int
) -> float:
    """The peak of a rehearsal of segments of `segment_steps`, longer than all of `probes`; 0 without any."""
    if not probes:
        return 0
    last, length = probes[-1], loop.inputs.length
    longer = segment_steps - last.segment_steps
    more = rehearsed_steps(length, segment_steps) - rehearsed_steps(length, last.segment_steps)
    grown = _bytes_of_a_step(probes, is_segment=loop.is_segment) * longer + _row_bytes(loop, static) * more
    if len(probes) > 1:
        before = probes[-2]
        seen = last.rehearsal_peak_bytes - before.rehearsal_peak_bytes
        grown = max(grown, seen / (last.segment_steps - before.segment_steps) * longer)
    return last.rehearsal_peak_bytes + grown


def rehearsed_steps(length: int, segment_steps: int) -> int:
    """Steps of a rehearsal of segments of `segment_steps`, of a loop of `length`."""
    segments, last_steps = segment_sizes(length, segment_steps)
    return (min(MOST_STAGES, segments) - 1) * segment_steps + last_steps


def _bytes_of_a_step(probes: Sequence[Probed], *, is_segment: bool) -> float:
    """What a step more adds to what a segment holds while it runs. With one probe, a segment function's whole
    workspace is taken to grow with its steps; looped steps need theirs one after the other.
    """
    last = probes[-1]
    if len(probes) == 1:
        return _held_bytes(last.inner, is_segment=is_segment) / last.segment_steps
    before = probes[-2]
    grown = _held_bytes(last.inner, is_segment=True) - _held_bytes(before.inner, is_segment=True)
    return grown / (last.segment_steps - before.segment_steps)


def _held_bytes(stage: Stage, *, is_segment: bool) -> int:
    """Of a tape and the largest workspace beside it; of a stage that can be undone, with its lost bits."""
    workspace = max(
        stage.forward_workspace_bytes, stage.taped_forward_workspace_bytes, stage.backward_workspace_bytes
    )
    held = stage.tape_bytes + (workspace if is_segment else 0)
    if stage.reversal is None:
        return held
    return max(held, stage.reversal.undo_workspace_bytes + MOST_STAGES * stage.reversal.archive_bytes)


def _row_bytes(loop: Loop, static: Sequence[StaticLine]) -> float:
    """Outputs, their gradients and those of the inputs, of one step."""
    growing = {"gradients of the inputs"}
    if loop.reduce == "stack":
        growing |= {"outputs", "gradients of the outputs"}
    return sum(line.bytes for line in static if line.name in growing) / loop.inputs.length
