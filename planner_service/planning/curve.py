"""The curve of a question: what each budget buys, in about a millisecond, for answers about many holes.

Where stages are alike the points are counted (solvers.sketch): every makespan is that of some policy, so
the plan of that budget is at most as slow. Other chains are planned, a few budgets each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner_service.chain import Verdict
from planner_service.memory import Candidate
from planner_service.memory.candidate import CostUnit
from planner_service.placement import Curve
from planner_service.planning.choice import choose
from planner_service.planning.full_bptt import full_bptt
from planner_service.planning.least import least_budget_bytes
from planner_service.solvers import Cancellation, FrontierPoint, affordable_points, sampled, sufficient_bytes
from planner_service.solvers.sketch import Sketch, frontier_sketch, quadratic_makespan

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


def curve_of(candidates: Sequence[Candidate], cancellation: Cancellation | None) -> JobCurve:
    """The curve over all segment lengths; its first budget is the least that can be planned, to the byte.

    Raises Cancelled, and for chains of many different stages what `choose` raises.
    """
    full = full_bptt(candidates)
    least_bytes = least_budget_bytes(candidates, cancellation)
    curve = _counted(candidates, full, least_bytes) or _planned(candidates, full, least_bytes, cancellation)
    held_bytes = min(candidate.chain.static_bytes for candidate in candidates)
    return JobCurve(curve, full, candidates[0].cost_unit, held_bytes)


def _counted(candidates: Sequence[Candidate], full: Verdict, least_bytes: int) -> Curve | None:
    """None where the stages of some candidate are not alike, or can be undone: that is not counted."""
    sketches: list[Sketch] = []
    for candidate in candidates:
        undone = any(run.stage.reversal is not None for run in candidate.chain.runs)
        sketch = None if undone else frontier_sketch(candidate.chain)
        if sketch is None:
            return None
        sketches.append(sketch)
    leanest = max(quadratic_makespan(candidate.chain) for candidate in candidates)
    budget_bytes = np.concatenate(
        [np.array([least_bytes, full.peak_bytes], dtype=np.int64), *(s.budget_bytes for s in sketches)]
    )
    makespan = np.concatenate([[leanest, full.makespan], *(s.makespan for s in sketches)])
    return Curve.of(budget_bytes, makespan, exactness="bound", store_all_makespan=full.makespan)


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
