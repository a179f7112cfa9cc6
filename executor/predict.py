"""What a budget will give, before anything runs: the plan, its peak, its seconds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from executor.known import Known, known
from executor.loop import Loop
from executor.plan import ExecutionPlan, tape_everything
from executor.planner import AskPlanner, best_plan, in_process, over_http
from executor.probe import ProbeReport, StaticLine, probe_loop, usual_candidates
from executor.sizes import parse_budget_bytes
from planner_service.chain import simulate

REFINEMENTS = 2
"""How many further segment lengths are probed once the best of the usual ones is known."""
SMALLEST_GAP = 1.3
"""Lengths closer than this ratio are not worth telling apart."""


@dataclass(frozen=True)
class Prediction:
    """What the loop will take under its plan."""

    plan: ExecutionPlan
    budget_bytes: int
    projected_peak_bytes: int
    """Upper bound of the bytes that the call adds."""
    projected_seconds: float
    """One forward and backward, by the probe's clock."""
    full_bptt_peak_bytes: int
    """What the same segments take when everything is taped."""
    full_bptt_seconds: float
    static: tuple[StaticLine, ...]
    """What is live throughout, line by line."""


def plan_for(loop: Loop, budget: int | str, planner: str | None = None) -> ExecutionPlan:
    """The plan of `loop` for `budget`, remembered for calls alike. `planner` is a service's URL.

    Raises BudgetTooSmall and what `probe_loop` raises.
    """
    budget_bytes = parse_budget_bytes(budget)
    about = known(loop)
    plan = about.plans.get((budget_bytes, planner))
    if plan is None:
        plan = _refined_plan(about, loop, budget_bytes, _planner(planner))
        about.plans[budget_bytes, planner] = plan
    return plan


def _refined_plan(about: Known, loop: Loop, budget_bytes: int, ask: AskPlanner) -> ExecutionPlan:
    """The best plan over the usual segment lengths, then over some between the best and the next: the
    longest segments that fit are the quickest, and the usual lengths are far apart.
    """
    plan = best_plan(about.report(loop, budget_bytes), budget_bytes, ask)
    longer = [steps for steps in usual_candidates(loop) if steps > plan.segment_steps]
    extra: list[int] = []
    above = min(longer, default=plan.segment_steps)
    for _ in range(REFINEMENTS):
        between = round(math.sqrt(plan.segment_steps * above))
        if above < SMALLEST_GAP * plan.segment_steps or between in (plan.segment_steps, above):
            break
        extra.append(between)
        finer = best_plan(about.report(loop, budget_bytes, extra), budget_bytes, ask)
        if finer.segment_steps != between:
            above = between
        plan = finer
    return plan


def probe(
    step: Any, state: Any, inputs: Any, *, candidates: Iterable[int] = (), **description: Any
) -> ProbeReport:
    """Measure the loop that `unroll` would run, for each segment length in `candidates`.

    `description` are the keyword arguments of `unroll` that describe the loop: module, captured, reduce,
    segment, length, final_state. Changes nothing: parameters, buffers and random streams are as before.
    """
    return probe_loop(Loop.of(step, state, inputs, **description), candidates=candidates)


def predict(
    step: Any, state: Any, inputs: Any, *, budget: int | str, planner: str | None = None, **description: Any
) -> Prediction:
    """What `unroll` with these arguments will do. Raises BudgetTooSmall with the least budget.

    The next `unroll` alike runs under the predicted plan.
    """
    loop = Loop.of(step, state, inputs, **description)
    budget_bytes = parse_budget_bytes(budget)
    plan = plan_for(loop, budget_bytes, planner)
    report = known(loop).report(loop, budget_bytes, [plan.segment_steps])
    chain = report.chain(report.length, plan.segment_steps)
    everything = simulate(chain, tape_everything(report.length, plan.segment_steps).schedule())
    chosen = simulate(chain, plan.schedule())
    return Prediction(
        plan=plan,
        budget_bytes=budget_bytes,
        projected_peak_bytes=chosen.peak_bytes,
        projected_seconds=chosen.makespan,
        full_bptt_peak_bytes=everything.peak_bytes,
        full_bptt_seconds=everything.makespan,
        static=report.static,
    )


def _planner(url: str | None) -> AskPlanner:
    return in_process if url is None else over_http(url)
