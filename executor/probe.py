"""Measures a loop, segment length by segment length: bytes and seconds of every stage, through the engine.

For each candidate length the loop's first segments are rehearsed. The bytes of a stage follow from what
was live before, during and after each action on it, so that a plan's projected peak is what a run under
it will measure; the seconds are what the engine took, its own price included.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from executor.errors import PlanMismatch, SparseGradients, UnsupportedOutput
from executor.loop import Loop
from executor.memory.sizes import held_bytes
from executor.memory.trace import paused
from executor.offload.host_tapes import HostTapes
from executor.offload.tape_costs import with_tapes_on_host
from executor.probing.action_costs import seconds_of_actions
from executor.probing.left_behind import beside_what_is_left, bytes_of_run, left_behind
from executor.probing.rehearsal import Rehearsal, without_traces
from executor.probing.rehearsal_peak import expected_peak_bytes
from executor.probing.stage_costs import as_large_as, at_worst, stage_bytes, stage_seconds
from executor.probing.static_lines import StaticLine, backward_only_bytes, static_lines
from executor.probing.survey import exceeds
from executor.probing.undo_costs import with_reversals
from executor.rules.dry_run import Needs, without_saved_tensor_hooks
from executor.stages.parameters import Parameters
from planner_service.chain import (
    MAXIMUM_BYTES,
    Chain,
    Stage,
    TieredAction,
    segment_sizes,
    segmented_chain,
    stage_record,
)

STEP_CANDIDATES = (1, 5, 10, 20, 50)
"""Segment lengths tried for a looped step function."""
SEGMENT_CANDIDATES = (1, 2, 5, 10, 20, 50, 100)
"""Segment lengths tried for a segment function; the shortest serve the smallest budgets."""
REVERSIBLE_CANDIDATES = SEGMENT_CANDIDATES[:-1]
"""The lengths tried for reversible layers. Their steps run one by one: segments of 100 steps gain little over
those of 50, and take as long to rehearse as all others together."""
TIMING_ROUNDS = 5
TIMING_SECONDS = 0.5
"""After so many no further round is begun, but for the second: long segments are timed well by two."""


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


def probe_loop(
    loop: Loop,
    *,
    budget_bytes: int | None = None,
    candidates: Iterable[int] = (),
    extra: Iterable[int] = (),
    already: ProbeReport | None = None,
) -> ProbeReport:
    """Probe `loop` for each candidate segment length (by default the usual ones), and for the extra ones.

    Candidates are tried in rising order as long as their rehearsal, by those before it, will not exceed
    `budget_bytes`; the first is always tried. What `already` has is not measured again.

    What three stages show is taken for all: steps are expected to differ in values, not in what they use.
    Where a rehearsal leaves that open (`_leaves_it_open`), all stages are looked at. A parameter without a
    gradient, a number in the state: these say that steps may differ. A state part of which had no
    gradient, or a first stage that takes more than the next: that they do.

    Raises StateChanged, StateMutated, CaptureError, UnsupportedOutput or GrowingMemory for a step that breaks
    a rule, and SparseGradients for a module whose gradients have no size of their own.
    """
    if Parameters(loop.modules).has_sparse_gradients:
        raise SparseGradients(
            "a module of the step has sparse=True: the bytes of its gradient depend on the data, so no "
            "budget can be kept; make it with sparse=False, look the rows up before the loop, or give a plan"
        )
    with paused(), without_saved_tensor_hooks(), without_traces(loop):
        needs = loop.needs() if already is None else already.needs
        static = None if already is None else already.static
        measured = {} if already is None else {s.segment_steps: s for s in already.segments}
        steps_differ = None if already is None else already.steps_differ
        shortest: list[torch.Size] | None = None
        probes: list[SegmentProbe] = []
        for segment_steps in sorted({*(candidates or usual_candidates(loop, needs)), *extra}):
            if segment_steps not in measured:
                expected_bytes = expected_peak_bytes(loop, static or (), probes, segment_steps)
                if expected_bytes > (budget_bytes or MAXIMUM_BYTES):
                    continue
                rehearsal = Rehearsal(loop, needs, segment_steps)
                shortest = shortest or rehearsal.output_shapes
                _require_sums(loop, shortest, rehearsal)
                static = static or static_lines(loop, rehearsal)
                before = steps_differ
                of_chance = needs.draws_random_numbers or bool(needs.moved_streams)
                shortest_segment = probes[0] if probes and of_chance else None
                measured[segment_steps], steps_differ = _probe_segment(
                    loop, rehearsal, before, shortest_segment
                )
                del rehearsal  # its gradients, before those of the next are made
                if steps_differ and not before and probes:  # shorter segments did not show it
                    start = ProbeReport(loop.inputs.length, needs, static, (), str(loop.device), steps_differ)
                    again = {*extra, *(probe.segment_steps for probe in probes)}
                    return probe_loop(
                        loop, budget_bytes=budget_bytes, candidates=candidates, extra=again, already=start
                    )
            probes.append(measured[segment_steps])
    return ProbeReport(loop.inputs.length, needs, static or (), tuple(probes), str(loop.device), steps_differ)


def beside_host_memory(
    loop: Loop, report: ProbeReport, budget_bytes: int, host_budget_bytes: int
) -> ProbeReport:
    """`report`, its stages with what their tapes take in `host_budget_bytes` of host memory.

    Left as they are: segments of which two tapes would exceed `budget_bytes` while this is measured, those of
    loops that reversible layers undo, whose steps take different bytes or leave tensors behind, and those
    that host memory has no room for.
    """
    if report.needs.lost is not None or report.steps_differ or any(s.left_bytes for s in report.segments):
        return report
    with paused(), without_saved_tensor_hooks(), without_traces(loop):
        segments = tuple(
            _beside_host_memory(loop, report.needs, segment, budget_bytes, host_budget_bytes)
            for segment in report.segments
        )
    return replace(report, segments=segments)


def _beside_host_memory(
    loop: Loop, needs: Needs, segment: SegmentProbe, budget_bytes: int, host_budget_bytes: int
) -> SegmentProbe:
    inner = segment.inner
    expected_bytes = segment.rehearsal_peak_bytes + inner.tape_bytes + inner.state_bytes
    if segment.host_tapes is not None or expected_bytes > budget_bytes:
        return segment
    found = None
    # What a stage keeps changes from one time to the next, or it runs what saved-tensor hooks cannot enter
    # (transforms of torch.func): then its tapes stay.
    with suppress(PlanMismatch, RuntimeError):
        found = with_tapes_on_host(
            segment.stages(loop.inputs.length),
            loop,
            needs,
            segment.segment_steps,
            input_gradient_bytes=segment.input_gradient_bytes,
            device_budget_bytes=budget_bytes,
            host_budget_bytes=host_budget_bytes,
        )
    if found is None:
        return segment
    measured, tapes = found
    return replace(
        segment, first=measured[0], inner=measured[len(measured) // 2], last=measured[-1], host_tapes=tapes
    )


def usual_candidates(loop: Loop, needs: Needs) -> list[int]:
    """The segment lengths that are tried for this loop unless others are asked for."""
    usual: tuple[int, ...] = STEP_CANDIDATES
    if loop.is_segment:
        usual = SEGMENT_CANDIDATES if needs.lost is None else REVERSIBLE_CANDIDATES
    return [steps for steps in usual if steps < loop.inputs.length] or [loop.inputs.length]


def _require_sums(loop: Loop, shortest: list[torch.Size], rehearsal: Rehearsal) -> None:
    """Raise UnsupportedOutput when the sum that segments put out depends on how long they are."""
    sums = [[list(shape) for shape in shapes] for shapes in (shortest, rehearsal.output_shapes)]
    if loop.reduce == "sum" and loop.is_segment and sums[0] != sums[1]:
        raise UnsupportedOutput(
            "with reduce='sum' a segment puts out the sum over its steps, but segments of fewer and of "
            f"{rehearsal.segment_steps} steps put out {sums[0]} and {sums[1]}: "
            "add the steps up (output.sum(0)), or use reduce='stack'"
        )


def _probe_segment(
    loop: Loop, rehearsal: Rehearsal, steps_differ: bool | None, shortest: SegmentProbe | None
) -> tuple[SegmentProbe, bool | None]:
    """What segments of this length take, and whether steps are known to differ now. Where that may be a
    matter of chance, the `shortest` segments say what each step may take.
    """
    device = loop.device
    pieces, peak, left_bytes = bytes_of_run(rehearsal, device)
    accumulated = rehearsal.accumulated_bytes
    sized = stage_bytes(
        pieces,
        accumulated,
        stages=rehearsal.stages,
        final_state_bytes=rehearsal.final_state_bytes,
        backward_only_bytes=backward_only_bytes(loop, rehearsal),
    )
    timed = _timing_rounds(rehearsal, device)
    if rehearsal.lost is None and (rehearsal.gaps.in_states or _is_first_larger(sized.stages)):
        steps_differ = True
    if rehearsal.lost is None and (steps_differ or (steps_differ is None and _leaves_it_open(rehearsal))):
        surveyed = rehearsal.survey()
        peak = max(peak, surveyed.peak_bytes)
        steps_differ = steps_differ or not surveyed.is_uniform
        if steps_differ:
            most = surveyed.most
            if shortest is not None:
                most = at_worst(most, shortest.inner, -(-rehearsal.segment_steps // shortest.segment_steps))
            sized = as_large_as(
                most,
                sized,
                final_state_bytes=rehearsal.final_state_bytes,
                initial_gradient_bytes=sum(held_bytes(leaf) for leaf in loop.initial if _has_gradient(leaf)),
            )
    left_bytes = left_behind(rehearsal, left_bytes, device)
    sized = beside_what_is_left(sized, left_bytes)
    stages = stage_seconds(timed, sized.stages)
    if rehearsal.lost is not None:
        stages, undoing_peak = with_reversals(
            stages,
            rehearsal,
            rehearsal.lost,
            device=device,
            input_gradient_bytes=sized.input_gradient_bytes,
        )
        peak = max(peak, undoing_peak)
    probe = SegmentProbe(
        segment_steps=rehearsal.segment_steps,
        last_steps=rehearsal.last_steps,
        inner=stages[len(stages) // 2],
        first=stages[0],
        last=stages[-1],
        input_gradient_bytes=sized.input_gradient_bytes,
        surroundings_bytes=rehearsal.surroundings_bytes(pieces),
        rehearsal_peak_bytes=peak + rehearsal.held_bytes,
        first_pass_last=sized.first_pass_last,
        late_bytes=sized.late_bytes,
        left_bytes=left_bytes,
    )
    return probe, steps_differ


def _leaves_it_open(rehearsal: Rehearsal) -> bool:
    """Whether steps that were not rehearsed may use something else."""
    return rehearsal.gaps.in_totals or rehearsal.counts


def _is_first_larger(stages: Sequence[Stage]) -> bool:
    """Whether the first stage takes more than the next one, which meets a state with a gradient."""
    return len(stages) > 2 and exceeds(stages[0], stages[1])


def _has_gradient(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.requires_grad


def _timing_rounds(
    rehearsal: Rehearsal, device: torch.device
) -> Iterator[list[tuple[TieredAction | None, float]]]:
    """Seconds of the actions of a rehearsal, round by round."""
    spent = 0.0
    for count in range(TIMING_ROUNDS):
        if count >= 2 and spent >= TIMING_SECONDS:
            return
        times = seconds_of_actions(rehearsal.run, device)
        spent += sum(seconds for _, seconds in times)
        yield times


def _segment_record(segment: SegmentProbe) -> dict[str, Any]:
    stages = {"inner": segment.inner, "first": segment.first, "last": segment.last}
    if segment.host_tapes is not None:  # what tapes take beside one host's memory is no business of others
        stages = {name: stage and replace(stage, reversal=None) for name, stage in stages.items()}
    return {
        "segment_steps": segment.segment_steps,
        "last_steps": segment.last_steps,
        **{name: stage and stage_record(stage) for name, stage in stages.items()},
    }
