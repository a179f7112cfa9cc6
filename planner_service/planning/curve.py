"""The curve of a question: what each budget buys, in about a millisecond, for answers about many holes.

Where stages are alike the points are counted (solvers.sketch): every makespan is that of some policy, so
the plan of that budget is at most as slow. Other chains are planned, a few budgets each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from planner_service.chain import Chain
from planner_service.memory import Candidate, CostUnit
from planner_service.placement import Curve
from planner_service.planning.choice import choose
from planner_service.planning.full_bptt import full_bptt
from planner_service.planning.least import least_budget_bytes
from planner_service.solvers import Cancellation, FrontierPoint, affordable_points, sampled, sufficient_bytes
from planner_service.solvers.sketch import Outline, frontier_sketch

PLANNED_POINTS = 12


class FullBptt(NamedTuple):
    """Full BPTT without a budget."""

    peak_bytes: int
    makespan: float


@dataclass(frozen=True)
class JobCurve:
    """A curve and what it is measured against."""

    curve: Curve
    full: FullBptt
    unit: CostUnit
    held_bytes: int
    """Held throughout by the plan that holds least."""


def curve_of_candidates(candidates: Sequence[Candidate], cancellation: Cancellation | None) -> JobCurve:
    """The curve of these candidates. Raises Cancelled and what `choose` raises."""
    verdict = full_bptt(candidates)
    full = FullBptt(verdict.peak_bytes, verdict.makespan)
    least_bytes = least_budget_bytes(candidates, cancellation)
    outlines = [_outline(candidate.chain) for candidate in candidates]
    known = [outline for outline in outlines if outline is not None]
    if len(known) == len(outlines):
        curve = sketched(known, full, least_bytes)
    else:
        curve = _planned(candidates, full, least_bytes, cancellation)
    held_bytes = min(candidate.chain.static_bytes for candidate in candidates)
    return JobCurve(curve, full, candidates[0].cost_unit, held_bytes)


def _outline(chain: Chain) -> Outline | None:
    """None where stages are not alike, or can be undone: that is not counted."""
    return None if chain.has_reversals else Outline.of(chain)


def sketched(outlines: Sequence[Outline], full: FullBptt, least_bytes: int) -> Curve:
    """The counted points, with the two that are known exactly."""
    sketch = frontier_sketch(outlines)
    leanest = max(outline.quadratic_makespan for outline in outlines)
    return Curve.of(
        np.append(sketch.budget_bytes, [least_bytes, full.peak_bytes]),
        np.append(sketch.makespan, [leanest, full.makespan]),
        exactness="bound",
        store_all_makespan=full.makespan,
    )


def _planned(
    candidates: Sequence[Candidate], full: FullBptt, least_bytes: int, cancellation: Cancellation | None
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
