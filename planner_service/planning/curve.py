"""The curve of a question: what each budget buys, in about a millisecond, for answers about many holes.

Where stages are alike the points are counted (solvers.sketch): every makespan is that of some policy, so
the plan of that budget is at most as slow. Other chains are planned, a few budgets each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner_service.chain import Chain, Verdict
from planner_service.contract import ChainModel, Question
from planner_service.memory import (
    Candidate,
    CostUnit,
    Profile,
    Workload,
    is_counted,
    step_candidates,
    step_segments,
)
from planner_service.memory.steps import SegmentBytes
from planner_service.placement import Curve
from planner_service.planning.candidates import candidates_of, workload_of
from planner_service.planning.choice import choose
from planner_service.planning.full_bptt import full_bptt
from planner_service.planning.least import least_budget_bytes
from planner_service.solvers import Cancellation, FrontierPoint, affordable_points, sampled, sufficient_bytes
from planner_service.solvers.sketch import Outline, frontier_sketch

PLANNED_POINTS = 12


@dataclass(frozen=True)
class JobCurve:
    """A curve and what it is measured against."""

    curve: Curve
    full: Verdict
    """Full BPTT without a budget."""
    unit: CostUnit
    held_bytes: int
    """Held throughout by the plan that holds least."""


def curve_of(
    question: Question, known_profiles: Sequence[Profile], cancellation: Cancellation | None
) -> JobCurve:
    """The curve over all segment lengths; its first budget is the least that can be planned, to the byte.

    Raises what `candidates_of` raises, Cancelled, and for chains of many different stages what `choose`
    raises.
    """
    if question.profile is None and not isinstance(question.model, ChainModel):
        workload = workload_of(question)
        if is_counted(workload, known_profiles):
            found = _of_steps(workload, cancellation)
            if found is not None:
                return found
    return curve_of_candidates(candidates_of(question, known_profiles), cancellation)


def curve_of_candidates(candidates: Sequence[Candidate], cancellation: Cancellation | None) -> JobCurve:
    """The curve of these candidates. Raises Cancelled and what `choose` raises."""
    full = full_bptt(candidates)
    least_bytes = least_budget_bytes(candidates, cancellation)
    outlines = [_outline(candidate.chain) for candidate in candidates]
    known = [outline for outline in outlines if outline is not None]
    if len(known) == len(outlines):
        curve = _sketched(known, full, least_bytes)
    else:
        curve = _planned(candidates, full, least_bytes, cancellation)
    held_bytes = min(candidate.chain.static_bytes for candidate in candidates)
    return JobCurve(curve, full, candidates[0].cost_unit, held_bytes)


def _outline(chain: Chain) -> Outline | None:
    """None where stages are not alike, or can be undone: that is not counted."""
    if any(run.stage.reversal is not None for run in chain.runs):
        return None
    return Outline.of(chain)


def _of_steps(workload: Workload, cancellation: Cancellation | None) -> JobCurve | None:
    """The same curve for a model whose steps are counted, with one candidate made in place of all; None
    where its sizes leave 64 bits, or another length of segments might be leaner.
    """
    segments = step_segments(workload)
    finest = min(segments, key=lambda segment: segment.tape + segment.backward_workspace)
    (candidate,) = step_candidates(workload, [finest.segment_steps])
    chain = candidate.chain
    least_bytes = least_budget_bytes([candidate], cancellation)
    held_bytes = chain.static_bytes + chain.input_bytes
    certain = [held_bytes + each.tape + max(each.workspace, each.backward_workspace) for each in segments]
    rivals = [bytes_ for each, bytes_ in zip(segments, certain, strict=True) if each is not finest]
    outlines = [_outline_of_segments(each, chain) for each in segments]
    known = [outline for outline in outlines if outline is not None]
    if (
        finest.segment_steps != 1
        or len(known) < len(outlines)
        or min(rivals, default=least_bytes) < least_bytes
    ):
        return None
    full = full_bptt([candidate])
    return JobCurve(_sketched(known, full, least_bytes), full, candidate.cost_unit, chain.static_bytes)


def _outline_of_segments(segment: SegmentBytes, chain: Chain) -> Outline | None:
    return Outline.of_stages(
        length=segment.segment_count,
        state_bytes=segment.state,
        tape_bytes=segment.tape,
        gradient_bytes=segment.state,
        forward_workspace_bytes=segment.workspace,
        taped_workspace_bytes=segment.workspace,
        backward_workspace_bytes=segment.backward_workspace,
        held_bytes=chain.static_bytes + chain.input_bytes,
        advance_cost=segment.segment_steps,
        store_all_makespan=chain.store_all_makespan,
    )


def _sketched(outlines: Sequence[Outline], full: Verdict, least_bytes: int) -> Curve:
    sketch = frontier_sketch(outlines)
    leanest = max(outline.quadratic_makespan for outline in outlines)
    return Curve.of(
        np.append(sketch.budget_bytes, [least_bytes, full.peak_bytes]),
        np.append(sketch.makespan, [leanest, full.makespan]),
        exactness="bound",
        store_all_makespan=full.makespan,
    )


def _planned(
    candidates: Sequence[Candidate], full: Verdict, least_bytes: int, cancellation: Cancellation | None
) -> Curve:
    def price(budget_bytes: int) -> FrontierPoint:
        solution = choose(candidates, budget_bytes, "auto", cancellation).solution
        return FrontierPoint(sufficient_bytes(solution, budget_bytes), solution.verdict.makespan)

    affordable = min(affordable_points(candidate.chain) for candidate in candidates)
    points = sampled(
        price,
        least_bytes=least_bytes,
        most_bytes=full.peak_bytes,
        most_points=min(PLANNED_POINTS, affordable),
    )
    budgets, makespans = zip(*points, strict=True)
    return Curve.of(
        np.array(budgets, dtype=np.int64),
        np.array(makespans),
        exactness="planned",
        store_all_makespan=full.makespan,
    )
