"""Measures a loop, segment length by segment length: bytes and seconds of every stage, through the engine.

For each candidate length the loop's first segments are rehearsed. The bytes of a stage follow from what
was live before, during and after each action on it, so that a plan's projected peak is what a run under
it will measure; the seconds are what the engine took, its own price included.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from executor.errors import SparseGradients, UnsupportedOutput
from executor.loop import Loop
from executor.memory.sizes import held_bytes
from executor.memory.trace import paused
from executor.probe_report import ProbeReport, SegmentProbe
from executor.probing.action_costs import seconds_of_actions
from executor.probing.layouts import in_both_layouts
from executor.probing.left_behind import beside_what_is_left, bytes_of_run, left_behind
from executor.probing.rehearsal import Rehearsal, without_traces
from executor.probing.rehearsal_peak import expected_peak_bytes
from executor.probing.stage_costs import StageBytes, as_large_as, at_worst, stage_bytes, stage_seconds
from executor.probing.static_lines import backward_only_bytes, kept_by_steps, static_lines
from executor.probing.survey import Surveyed, exceeds
from executor.probing.undo_costs import with_reversals
from executor.rules.needs import Needs
from executor.rules.saved_tensor_hooks import without_saved_tensor_hooks
from executor.stages.parameters import Parameters
from planner_service.chain import (
    MAXIMUM_BYTES,
    Stage,
    TieredAction,
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
        probing = _Probing(loop, budget_bytes, already)
        lengths = sorted({*(candidates or usual_candidates(loop, probing.needs)), *extra})
        if not probing.try_all(lengths):
            probing.forget_segments()
            probing.try_all(lengths)
        return probing.report()


class _Probing:
    """One probe of a loop on its way: what is known of the loop so far, and of segments of each length."""

    def __init__(self, loop: Loop, budget_bytes: int | None, already: ProbeReport | None) -> None:
        self._loop = loop
        self._budget_bytes = budget_bytes or MAXIMUM_BYTES
        self.needs = loop.needs() if already is None else already.needs
        self._static = () if already is None else already.static
        self._steps_differ = None if already is None else already.steps_differ
        self._measured = {} if already is None else {s.segment_steps: s for s in already.segments}
        self._probes: list[SegmentProbe] = []
        """Of the lengths that were tried, the shortest first."""
        self._first_output_shapes: list[torch.Size] | None = None
        """Of the first segments that were rehearsed."""

    def try_all(self, lengths: Sequence[int]) -> bool:
        """Probe segments of these lengths, given in rising order, as far as the budget allows.

        Stops and returns False when one of them shows that steps differ, and shorter ones had not: what was
        measured of the shorter ones, on the stages that were rehearsed, may not hold for all then.
        """
        for segment_steps in lengths:
            if segment_steps not in self._measured:
                if not self._can_rehearse(segment_steps):
                    continue
                differed = self._steps_differ
                self._measured[segment_steps] = self._measure(segment_steps)
                if self._steps_differ and not differed and self._probes:
                    return False
            self._probes.append(self._measured[segment_steps])
        return True

    def forget_segments(self) -> None:
        """Keep what holds for all lengths: what must be replayed, the static lines, that steps differ."""
        self._measured = {}
        self._probes = []
        self._first_output_shapes = None

    def report(self) -> ProbeReport:
        """What was found."""
        loop, probes = self._loop, tuple(self._probes)
        return ProbeReport(
            loop.inputs.length, self.needs, self._static, probes, str(loop.device), self._steps_differ
        )

    def _can_rehearse(self, segment_steps: int) -> bool:
        expected_bytes = expected_peak_bytes(self._loop, self._static, self._probes, segment_steps)
        return expected_bytes <= self._budget_bytes

    def _measure(self, segment_steps: int) -> SegmentProbe:
        rehearsal = Rehearsal(self._loop, self.needs, segment_steps)
        self._first_output_shapes = self._first_output_shapes or rehearsal.output_shapes
        _require_sums(self._loop, self._first_output_shapes, rehearsal)
        self._static = self._static or static_lines(self._loop, rehearsal)
        by_chance = self.needs.draws_random_numbers or bool(self.needs.moved_streams)
        by_chance |= rehearsal.goes_by_values and not rehearsal.counts
        shortest = self._probes[0] if self._probes and by_chance else None
        is_first_look = self._steps_differ is None
        probe, survey, self._steps_differ = _probe_segment(
            self._loop, rehearsal, self._steps_differ, shortest
        )
        if is_first_look and survey is not None and survey.kept_bytes:
            self._static += (kept_by_steps(survey.kept_bytes),)
        return replace(probe, graph_bytes=self._graph_bytes(probe, by_chance=by_chance))

    def _graph_bytes(self, probe: SegmentProbe, *, by_chance: bool) -> int | None:
        """The largest graph of segments like `probe`, by the survey of them, or by the shortest ones."""
        if not self.needs.by_values:
            return None
        shortest = self._probes[0] if self._probes else probe
        if shortest.graph_bytes is None or (probe.graph_bytes is not None and not by_chance):
            return probe.graph_bytes
        return -(-probe.segment_steps // shortest.segment_steps) * shortest.graph_bytes


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
) -> tuple[SegmentProbe, Surveyed | None, bool | None]:
    """What segments of this length take, what was found if all stages were looked at, and whether steps are
    known to differ now. Where that may be a matter of chance, the `shortest` segments say what each step may
    take.
    """
    device = loop.device
    survey: Surveyed | None = None
    pieces, peak_bytes, left_bytes = in_both_layouts(rehearsal, partial(bytes_of_run, rehearsal, device))
    sized = stage_bytes(
        pieces,
        rehearsal.accumulated_bytes,
        stages=rehearsal.stages,
        final_state_bytes=rehearsal.final_state_bytes,
        backward_only_bytes=backward_only_bytes(loop, rehearsal),
    )
    left_bytes = left_behind(rehearsal, left_bytes, device)
    if rehearsal.lost is None:
        sized, survey, steps_differ = _surveyed(
            loop, rehearsal, sized, steps_differ, shortest, left_bytes=left_bytes
        )
        peak_bytes = max(peak_bytes, survey.peak_bytes if survey is not None else 0)
    sized = beside_what_is_left(sized, left_bytes)
    stages = stage_seconds(_timing_rounds(rehearsal, device), sized.stages)
    if rehearsal.lost is not None:
        stages, undoing_bytes = with_reversals(
            stages,
            rehearsal,
            rehearsal.lost,
            device=device,
            input_gradient_bytes=sized.input_gradient_bytes,
        )
        peak_bytes = max(peak_bytes, undoing_bytes)
    probe = SegmentProbe(
        segment_steps=rehearsal.segment_steps,
        last_steps=rehearsal.last_steps,
        inner=stages[len(stages) // 2],
        first=stages[0],
        last=stages[-1],
        input_gradient_bytes=sized.input_gradient_bytes,
        surroundings_bytes=rehearsal.surroundings_bytes(pieces),
        rehearsal_peak_bytes=peak_bytes + rehearsal.held_bytes,
        first_pass_last=sized.first_pass_last,
        late_bytes=sized.late_bytes,
        left_bytes=left_bytes,
        graph_bytes=survey.graph_bytes if survey is not None else None,
    )
    return probe, survey, steps_differ


def _surveyed(
    loop: Loop,
    rehearsal: Rehearsal,
    sized: StageBytes,
    steps_differ: bool | None,
    shortest: SegmentProbe | None,
    *,
    left_bytes: int,
) -> tuple[StageBytes, Surveyed | None, bool | None]:
    """`sized` as it holds for stages that were not rehearsed, too; what was found if these were looked at;
    and whether steps are known to differ now.
    """
    if rehearsal.gaps.in_states or _is_first_larger(sized.stages):
        steps_differ = True
    if not steps_differ and not (steps_differ is None and _leaves_it_open(rehearsal)):
        return sized, None, steps_differ
    surveyed = rehearsal.survey(left_bytes)
    if not steps_differ and surveyed.is_uniform:
        return sized, surveyed, False
    most = surveyed.most
    if shortest is not None:
        most = at_worst(most, shortest.inner, -(-rehearsal.segment_steps // shortest.segment_steps))
    sized = as_large_as(
        most,
        sized,
        final_state_bytes=rehearsal.final_state_bytes,
        initial_gradient_bytes=sum(held_bytes(leaf) for leaf in loop.initial if _has_gradient(leaf)),
    )
    return sized, surveyed, True


def _leaves_it_open(rehearsal: Rehearsal) -> bool:
    """Whether steps that were not rehearsed may use something else."""
    return rehearsal.gaps.in_totals or rehearsal.counts or rehearsal.goes_by_values


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
