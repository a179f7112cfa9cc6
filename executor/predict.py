"""What a budget will give, before anything runs: the plan, its peak, its seconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from executor.known import Known, known
from executor.loop import Loop
from executor.made_for import MadeFor
from executor.memory.budget import parse_budget_bytes
from executor.plan import ExecutionPlan, tape_everything
from executor.planner import AskPlanner, best_plan, in_process, over_http
from executor.probe import probe_loop, usual_candidates
from executor.probe_report import ProbeReport
from executor.probing.static_lines import StaticLine
from executor.projection import projected_peak_bytes
from planner_service.chain import TieredVerdict, TierUse
from planner_service.chain.quantities import format_bytes

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
    tiers: tuple[TierUse, ...] = ()
    """What the plan moves to other tiers: bytes and seconds, by tier."""

    def __str__(self) -> str:
        """For people; a plan's own nodes may be thousands."""
        lines = [
            f"budget            {format_bytes(self.budget_bytes)}",
            f"projected peak    {format_bytes(self.projected_peak_bytes)}",
            f"full BPTT's peak  {format_bytes(self.full_bptt_peak_bytes)}",
            f"plan              {self.plan.strategy}, segments of {self.plan.segment_steps} steps",
            f"seconds           {self.projected_seconds:.3g}, full BPTT {self.full_bptt_seconds:.3g}",
        ]
        return "\n".join(lines)


def plan_for(
    loop: Loop, budget: int | str, planner: str | None = None, host_budget: int | str | None = None
) -> ExecutionPlan:
    """The plan of `loop` for `budget`, remembered for calls alike. `planner` is a service's URL;
    `host_budget` are the bytes of host memory that states or tapes may move to.

    Raises BudgetTooSmall and what `probe_loop` raises.
    """
    budget_bytes = parse_budget_bytes(budget)
    host_budget_bytes = None if host_budget is None else parse_budget_bytes(host_budget, name="host_budget")
    about = known(loop)
    key = (budget_bytes, planner, host_budget_bytes)
    plan = about.plans.get(key)
    if plan is None:
        host = None if host_budget_bytes is None else about.host(loop, host_budget_bytes)
        ask = partial(best_plan, budget_bytes=budget_bytes, ask=_planner(planner), host=host)
        report = partial(about.report_beside, loop, budget_bytes, host_budget_bytes=host_budget_bytes)
        plan = _refined_plan(about, loop, report, ask)
        found = report([plan.segment_steps])
        plan = replace(
            plan,
            made_for=MadeFor.of(loop),
            projected_peak_bytes=projected_peak_bytes(plan, found),
            graph_bytes=found.graph_bytes(plan.segment_steps),
        )
        about.remember_plan(key, plan)
    return plan


def _refined_plan(
    about: Known,
    loop: Loop,
    report: Callable[[Iterable[int]], ProbeReport],
    ask: Callable[[ProbeReport], ExecutionPlan],
) -> ExecutionPlan:
    """The best plan over the usual segment lengths, then over some between the best and the next: the
    longest segments that fit are the quickest, and the usual lengths are far apart.
    """
    plan = ask(report(()))
    longer = [steps for steps in usual_candidates(loop, about.needs(loop)) if steps > plan.segment_steps]
    extra: list[int] = []
    above = min(longer, default=plan.segment_steps)
    for _ in range(REFINEMENTS):
        between = round(math.sqrt(plan.segment_steps * above))
        if above < SMALLEST_GAP * plan.segment_steps or between in (plan.segment_steps, above):
            break
        extra.append(between)
        finer = ask(report(extra))
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
    step: Any,
    state: Any,
    inputs: Any,
    *,
    budget: int | str,
    planner: str | None = None,
    host_budget: int | str | None = None,
    **description: Any,
) -> Prediction:
    """What `unroll` with these arguments will do. Raises BudgetTooSmall with the least budget.

    The next `unroll` alike runs under the predicted plan.
    """
    loop = Loop.of(step, state, inputs, **description)
    budget_bytes = parse_budget_bytes(budget)
    plan = plan_for(loop, budget_bytes, planner, host_budget)
    host_budget_bytes = None if host_budget is None else parse_budget_bytes(host_budget, name="host_budget")
    report = known(loop).report_beside(loop, budget_bytes, [plan.segment_steps], host_budget_bytes)
    chain = report.chain(report.length, plan.segment_steps)
    everything = tape_everything(report.length, plan.segment_steps)
    chosen = plan.replayed(chain)
    return Prediction(
        plan=plan,
        budget_bytes=budget_bytes,
        projected_peak_bytes=projected_peak_bytes(plan, report),
        projected_seconds=chosen.makespan,
        full_bptt_peak_bytes=projected_peak_bytes(everything, report),
        full_bptt_seconds=everything.replayed(chain).makespan,
        static=report.static,
        tiers=chosen.tiers if isinstance(chosen, TieredVerdict) else (),
    )


def _planner(url: str | None) -> AskPlanner:
    return in_process if url is None else over_http(url)
