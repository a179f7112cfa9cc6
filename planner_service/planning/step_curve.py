"""The curve of a model whose steps are counted, by closed forms: no candidate, no solver.

All stages are alike, every gradient is as large as a state, and a tape holds a state at least. So the leanest
policy advances from the input to every stage anew, and full BPTT peaks at the end. `curve_of_candidates`
says the same to the byte, at ten times the price; a test holds them together.
"""

from __future__ import annotations

from planner_service.memory import (
    BACKWARD_RATIO,
    SegmentBytes,
    SegmentedSteps,
    StepOutlines,
    Workload,
    step_outlines,
)
from planner_service.planning.curve import FullBptt, JobCurve, sketched
from planner_service.solvers.sketch import Outline


def curve_of_steps(workload: Workload) -> JobCurve | None:
    """The curve of `workload`, whose candidates must be those of its counted steps; None where sizes leave
    64 bits.
    """
    steps = step_outlines(workload)
    makespan = (1 + BACKWARD_RATIO) * workload.sequence_length
    outlines = [_outline(steps, length, makespan) for length in steps.lengths]
    known = [outline for outline in outlines if outline is not None]
    if len(known) < len(outlines):
        return None
    held_bytes = steps.static_bytes + steps.state_bytes
    least_bytes = held_bytes + min(_least_bytes(steps.state_bytes, length) for length in steps.lengths)
    full = FullBptt(held_bytes + _store_all_bytes(steps.state_bytes, steps.lengths[0]), makespan)
    return JobCurve(sketched(known, full, least_bytes), full, "forward", steps.static_bytes)


def _outline(steps: StepOutlines, length: SegmentedSteps, store_all_makespan: float) -> Outline | None:
    return Outline.of_stages(
        length=length.segment_count,
        state_bytes=steps.state_bytes,
        tape_bytes=length.inner.tape,
        gradient_bytes=steps.state_bytes,
        forward_workspace_bytes=length.inner.workspace,
        taped_workspace_bytes=length.inner.workspace,
        backward_workspace_bytes=length.inner.backward_workspace,
        held_bytes=steps.static_bytes + steps.state_bytes,
        advance_cost=length.segment_steps,
        store_all_makespan=store_all_makespan,
    )


def _reversing_bytes(state: int, stage: SegmentBytes) -> int:
    """To tape a stage and reverse it, its input held by somebody else."""
    return state + stage.tape + max(stage.workspace, state + stage.backward_workspace)


def _least_bytes(state: int, length: SegmentedSteps) -> int:
    """Of the leanest policy, beyond what is held throughout."""
    count, inner, last = length.segment_count, length.inner, length.last
    if count == 1:
        return _reversing_bytes(state, last)
    advancing = state + min(2, count - 1) * state + inner.workspace
    needs = [advancing, _reversing_bytes(state, inner), state + _reversing_bytes(state, last)]
    if count > 2:
        needs.append(state + _reversing_bytes(state, inner))
    return max(needs)


def _store_all_bytes(state: int, length: SegmentedSteps) -> int:
    """Of full BPTT in these segments, beyond what is held throughout: its peak is at one of the last two."""
    count, inner, last = length.segment_count, length.inner, length.last
    before = (count - 1) * inner.tape
    end = before + _reversing_bytes(state, last)
    if count == 1:
        return end
    return max(end, before - inner.tape + _reversing_bytes(state, inner))
