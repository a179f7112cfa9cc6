"""What a budget will give, before anything runs: the plan, its peak, its seconds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from executor.known import known
from executor.loop import Loop
from executor.plan import ExecutionPlan, tape_everything
from executor.planner import AskPlanner, best_plan, in_process, over_http
from executor.probe import ProbeReport, StaticLine, probe_loop
from executor.sizes import parse_bytes
from planner_service.chain import simulate


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
    budget_bytes = parse_bytes(budget)
    about = known(loop)
    plan = about.plans.get((budget_bytes, planner))
    if plan is None:
        plan = best_plan(about.report(loop, budget_bytes), budget_bytes, _planner(planner))
        about.plans[budget_bytes, planner] = plan
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
    budget_bytes = parse_bytes(budget)
    report = known(loop).report(loop, budget_bytes)
    plan = plan_for(loop, budget_bytes, planner)
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
