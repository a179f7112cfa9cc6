"""What a probe found out about a loop: its stages, by segment length, and what is alive throughout."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import Any

import torch

from executor.offload.host_tapes import HostTapes
from executor.probing.static_lines import StaticLine
from executor.rules.needs import Needs
from planner_service.chain import Chain, Stage, segment_sizes, segmented_chain, stage_record

_GROWING = (
    "tape_bytes",
    "forward_workspace_bytes",
    "taped_forward_workspace_bytes",
    "backward_workspace_bytes",
)


@dataclass(frozen=True)
class SegmentProbe:
    """The stages of a chain whose segments have `segment_steps` steps, the last one `last_steps`."""

    segment_steps: int
    last_steps: int
    inner: Stage
    first: Stage | None
    last: Stage | None
    input_gradient_bytes: int
    """Gradient of the initial state, in bytes."""
    surroundings_bytes: int
    """Copies of random streams and buffers that a run holds throughout, in bytes."""
    rehearsal_peak_bytes: int
    """What measuring this took, in bytes."""
    first_pass_last: Stage
    """The last stage as it is taped, before there is any gradient; its bytes only."""
    late_bytes: int
    """Gradients among the static bytes that live once the backward pass has begun."""
    left_bytes: int = 0
    """What the step that ran last leaves behind (`executor.probing.left_behind`), in bytes."""
    host_tapes: HostTapes | None = None
    """Room in host memory for the tapes of these segments; their stages say then what it takes."""
    graph_bytes: int | None = None
    """The largest graph of a segment (`executor.rules.outgrowth`), where steps go by what is in tensors."""

    def at_least(self, step_graph_bytes: float) -> SegmentProbe:
        """What segments take whose steps have graphs of so many bytes, where those that were looked at have
        smaller ones and go by values: as much more as their operations put out more.
        """
        more_bytes = ceil(self.segment_steps * step_graph_bytes) - (self.graph_bytes or 0)
        if self.graph_bytes is None or more_bytes <= 0:
            return self
        return replace(
            self,
            inner=_grown(self.inner, more_bytes),
            first=self.first and _grown(self.first, more_bytes),
            last=self.last and _grown(self.last, more_bytes),
            first_pass_last=_grown(self.first_pass_last, more_bytes),
            graph_bytes=self.graph_bytes + more_bytes,
        )

    def stages(self, length: int) -> tuple[Stage, ...]:
        """The stages that were rehearsed, of `length` steps: at most three."""
        first, last = self.first or self.inner, self.last or self.inner
        segments, _ = segment_sizes(length, self.segment_steps)
        if segments == 1:
            return (last,)
        return (first, last) if segments == 2 else (first, self.inner, last)


@dataclass(frozen=True)
class ProbeReport:
    """What the planner needs to know about a loop."""

    length: int
    needs: Needs
    static: tuple[StaticLine, ...]
    segments: tuple[SegmentProbe, ...]
    device: str
    steps_differ: bool | None = None
    """Whether steps take different bytes, so that every stage counts as the largest; None where nothing in a
    rehearsal made anyone ask."""

    @property
    def static_bytes(self) -> int:
        """Sum of the static lines."""
        return sum(line.bytes for line in self.static)

    def host_tapes(self, segment_steps: int) -> HostTapes | None:
        """Room for tapes of segments of this length in host memory, if they were probed beside any."""
        return next((s.host_tapes for s in self.segments if s.segment_steps == segment_steps), None)

    def graph_bytes(self, segment_steps: int) -> int | None:
        """The largest graph of a segment of this length, where steps go by what is in tensors."""
        return next((s.graph_bytes for s in self.segments if s.segment_steps == segment_steps), None)

    def at_least(self, step_graph_bytes: float) -> ProbeReport:
        """The same of steps whose graphs have so many bytes at least, where steps go by values."""
        return replace(self, segments=tuple(each.at_least(step_graph_bytes) for each in self.segments))

    def chain(self, length: int, segment_steps: int) -> Chain:
        """The chain of `length` steps in segments of `segment_steps`, costs in seconds.

        Raises ValueError for a length or segment length that was not probed.
        """
        return self._chain(self._segment(length, segment_steps))

    def first_pass_chain(self, length: int, segment_steps: int) -> Chain:
        """The bytes of the same chain before there is any gradient. Raises ValueError like `chain`."""
        found = self._segment(length, segment_steps)
        return self._chain(replace(found, last=found.first_pass_last), late_bytes=found.late_bytes)

    def _segment(self, length: int, segment_steps: int) -> SegmentProbe:
        found = next((s for s in self.segments if s.segment_steps == segment_steps), None)
        if found is None or length != self.length:
            probed = [s.segment_steps for s in self.segments]
            raise ValueError(
                f"length={length}, segment_steps={segment_steps} was not probed: {self.length} steps in "
                f"segments of {probed} were"
            )
        return found

    def _chain(self, found: SegmentProbe, *, late_bytes: int = 0) -> Chain:
        segments, _ = segment_sizes(self.length, found.segment_steps)
        return segmented_chain(
            found.inner,
            segments,
            first=found.first,
            last=found.last,
            static_bytes=self.static_bytes + found.surroundings_bytes + found.left_bytes - late_bytes,
            loss_gradient_bytes=0,
            input_gradient_bytes=found.input_gradient_bytes,
        )

    def record(self, description: dict[str, Any] | None = None) -> dict[str, Any]:
        """The report as a profile that the planner's service takes; `description` names the model."""
        return {
            "source": "probe",
            "device": self.device,
            "torch": torch.__version__,
            **(description or {}),
            "sequence_length": self.length,
            "input_bytes": 0,
            "input_gradient_bytes": max(s.input_gradient_bytes for s in self.segments),
            "loss_gradient_bytes": 0,
            "static": [asdict(line) for line in (*self.static, *self._of_segments())],
            "segments": [_segment_record(segment) for segment in self.segments],
        }

    def _of_segments(self) -> tuple[StaticLine, StaticLine]:
        """Lines that may depend on the length of the segments: the most of all."""
        surroundings = max(segment.surroundings_bytes for segment in self.segments)
        left = max(segment.left_bytes for segment in self.segments)
        return (
            StaticLine("random streams and buffers", surroundings, "copies of the initial ones"),
            StaticLine("left behind", left, "what the last step left in attributes", "bound"),
        )


def _grown(stage: Stage, more_bytes: int) -> Stage:
    return replace(stage, **{name: getattr(stage, name) + more_bytes for name in _GROWING})


def _segment_record(segment: SegmentProbe) -> dict[str, Any]:
    stages = {"inner": segment.inner, "first": segment.first, "last": segment.last}
    if segment.host_tapes is not None:  # what tapes take beside one host's memory is no business of others
        stages = {name: stage and replace(stage, reversal=None) for name, stage in stages.items()}
    return {
        "segment_steps": segment.segment_steps,
        "last_steps": segment.last_steps,
        **{name: stage and stage_record(stage) for name, stage in stages.items()},
    }
