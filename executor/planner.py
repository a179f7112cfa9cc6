"""Asks the planner: in process, on the chains of a probe, or over HTTP. The only module here that imports
a solver or the service's client.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from executor.errors import BudgetTooSmall, PlanMismatch
from executor.plan import ExecutionPlan
from executor.probe import ProbeReport
from planner_service.chain import expand, policy_from_record, simulate
from planner_service.solvers import Solution, solve


def plan_in_process(report: ProbeReport, budget_bytes: int, strategy: str = "auto") -> ExecutionPlan:
    """The quickest plan within `budget_bytes` over every segment length of `report`.

    Raises BudgetTooSmall with the least budget over all of them.
    """
    best: tuple[int, Solution] | None = None
    refusals: list[BudgetTooSmall] = []
    for segment in report.segments:
        chain = report.chain(report.length, segment.segment_steps)
        try:
            solution = solve(chain, budget_bytes, strategy)
        except BudgetTooSmall as refusal:
            refusals.append(refusal)
            continue
        if best is None or solution.verdict.makespan < best[1].verdict.makespan:
            best = (segment.segment_steps, solution)
    if best is None:
        raise min(refusals, key=lambda refusal: refusal.minimum_budget_bytes)
    segment_steps, solution = best
    return ExecutionPlan(
        length=report.length,
        segment_steps=segment_steps,
        policy=solution.policy,
        projected_peak_bytes=solution.verdict.peak_bytes,
        makespan_seconds=solution.verdict.makespan,
        strategy=solution.strategy,
    )


class RemotePlanner:
    """A planning service, asked over HTTP. Needs httpx and pydantic, which the rest does without.

    Every method raises planner_service.client.PlannerUnreachable or PlannerRefused.
    """

    def __init__(self, url: str) -> None:
        from planner_service.client import PlannerClient

        self._client = PlannerClient(url)

    def plan(
        self, report: ProbeReport, budget_bytes: int, *, request: Mapping[str, Any], held_bytes: int
    ) -> tuple[ExecutionPlan, str]:
        """The service's plan for the loop of `report`, and its id.

        `request` describes the model, the sequence and the training, and carries the profile; the service
        counts `held_bytes` besides the call: what the caller holds throughout. The plan is replayed on the
        measured chain before it is trusted.

        Raises BudgetTooSmall, and PlanMismatch for a plan that breaks the rules or the budget.
        """
        memory = {"device_budget_bytes": budget_bytes + held_bytes}
        try:
            reply = self._client.plan({**request, "memory": memory})
        except Exception as error:
            minimum = _minimum_budget_bytes(error)
            if minimum is None:
                raise
            raise BudgetTooSmall(
                budget_bytes=budget_bytes, minimum_budget_bytes=minimum - held_bytes
            ) from error
        if reply.segment_steps is None:
            raise PlanMismatch("the service planned a chain of its own, not segments of this loop")
        policy = policy_from_record(reply.policy)
        verdict = simulate(report.chain(report.length, reply.segment_steps), expand(policy), budget_bytes)
        if verdict.illegal is not None:
            raise PlanMismatch(f"the service's plan {reply.id} breaks the rules here: {verdict.illegal}")
        plan = ExecutionPlan(
            length=report.length,
            segment_steps=reply.segment_steps,
            policy=policy,
            projected_peak_bytes=verdict.peak_bytes,
            makespan_seconds=verdict.makespan,
            strategy=reply.strategy,
        )
        return plan, reply.id

    def post_measurement(self, measurement: Mapping[str, Any]) -> None:
        """Report a training run."""
        self._client.post_measurement(measurement)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _minimum_budget_bytes(error: Exception) -> int | None:
    """The least budget that a refusal of the service names; None for any other error."""
    problem = getattr(error, "problem", {})
    minimum = problem.get("minimum_budget_bytes") if isinstance(problem, dict) else None
    return minimum if isinstance(minimum, int) else None
