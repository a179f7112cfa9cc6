"""Asks the planner, in process or over HTTP. The only module here that imports one.

A probe gives one chain per segment length; the planner is asked about each, and the quickest plan wins.
Whoever made a plan, it is replayed here by the simulator before it is run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from itertools import chain as concatenated
from typing import Any

from executor.errors import BudgetTooSmall, PlanMismatch
from executor.plan import ExecutionPlan
from executor.probe import ProbeReport
from planner_service.chain import Chain, Policy, Verdict, expand, policy_from_record, simulate

AskPlanner = Callable[[Chain, int], tuple[str, Policy]]
"""Answers a chain and a budget in bytes with a strategy's name and its policy, or raises BudgetTooSmall."""

MANY_SEGMENTS = 4096
"""Chains longer than this take long to plan; they are asked about only where no shorter one fits."""


def best_plan(report: ProbeReport, budget_bytes: int, ask: AskPlanner) -> ExecutionPlan:
    """The quickest plan within `budget_bytes` over every segment length of `report`.

    Raises BudgetTooSmall with the least budget over all of them.
    """
    chains = [(s.segment_steps, report.chain(report.length, s.segment_steps)) for s in report.segments]
    chains.sort(key=lambda candidate: candidate[1].store_all_makespan)
    refusals: list[BudgetTooSmall] = []
    best: ExecutionPlan | None = None
    for segment_steps, chain in _shortest_first(chains):
        if best is not None and _cannot_beat(chain, best):
            continue
        try:
            found = _checked_plan(report, segment_steps, chain, budget_bytes, ask)
        except BudgetTooSmall as refusal:
            refusals.append(refusal)
            continue
        if best is None or _seconds(found) < _seconds(best):
            best = found
    if best is None:
        raise min(refusals, key=lambda refusal: refusal.minimum_budget_bytes)
    return best


def _shortest_first(chains: list[tuple[int, Chain]]) -> Iterable[tuple[int, Chain]]:
    short = [candidate for candidate in chains if candidate[1].length <= MANY_SEGMENTS]
    long = [candidate for candidate in chains if candidate[1].length > MANY_SEGMENTS]
    return concatenated(short, long)


def _cannot_beat(chain: Chain, best: ExecutionPlan) -> bool:
    return chain.length > MANY_SEGMENTS or chain.store_all_makespan >= _seconds(best)


def _seconds(plan: ExecutionPlan) -> float:
    return plan.makespan_seconds if plan.makespan_seconds is not None else float("inf")


def _checked_plan(
    report: ProbeReport, segment_steps: int, chain: Chain, budget_bytes: int, ask: AskPlanner
) -> ExecutionPlan:
    strategy, policy = ask(chain, budget_bytes)
    verdict: Verdict = simulate(chain, expand(policy), budget_bytes)
    if not verdict.legal:
        raise PlanMismatch(f"the planner's {strategy} plan does not hold: {verdict.illegal}")
    return ExecutionPlan(
        length=report.length,
        segment_steps=segment_steps,
        policy=policy,
        projected_peak_bytes=verdict.peak_bytes,
        makespan_seconds=verdict.makespan,
        strategy=strategy,
    )


def in_process(chain: Chain, budget_bytes: int) -> tuple[str, Policy]:
    """Ask the solvers in this process."""
    from planner_service.solvers import solve

    solution = solve(chain, budget_bytes)
    return solution.strategy, solution.policy


def over_http(url: str) -> AskPlanner:
    """A planner that asks the service at `url`, whose errors are those of `planner_service.client`."""
    from planner_service.client import PlannerClient, PlannerRefused

    def ask(chain: Chain, budget_bytes: int) -> tuple[str, Policy]:
        with PlannerClient(url) as client:
            try:
                reply = client.plan(_request(chain, budget_bytes))
            except PlannerRefused as refusal:
                if refusal.slug != "budget-too-small":
                    raise
                minimum = int(refusal.problem["minimum_budget_bytes"])
                raise BudgetTooSmall(budget_bytes=budget_bytes, minimum_budget_bytes=minimum) from None
        return reply.strategy, policy_from_record(dict(reply.policy))

    return ask


def _request(chain: Chain, budget_bytes: int) -> dict[str, Any]:
    return {
        "model": {
            "kind": "chain",
            "input_bytes": chain.input_bytes,
            "static_bytes": chain.static_bytes,
            "loss_gradient_bytes": chain.loss_gradient_bytes,
            "input_gradient_bytes": chain.input_gradient_bytes,
            "stages": [{"count": run.count, **asdict(run.stage)} for run in chain.runs],
        },
        "memory": {"device_budget_bytes": budget_bytes},
    }


class RemotePlanner:
    """A planning service that is asked for whole models: one request, one plan with an id.

    Needs httpx and pydantic, which the rest does without. Every method raises PlannerUnreachable or
    PlannerRefused of `planner_service.client`.
    """

    def __init__(self, url: str) -> None:
        from planner_service.client import PlannerClient

        self._client = PlannerClient(url)

    def plan(
        self, report: ProbeReport, budget_bytes: int, *, request: Mapping[str, Any], held_bytes: int
    ) -> tuple[ExecutionPlan, str]:
        """The service's plan for the loop of `report`, and its id.

        `request` describes the model, the sequence and the training, and carries the profile. The service
        counts `held_bytes` besides the call: what the caller holds throughout.

        Raises BudgetTooSmall, and PlanMismatch for a plan that breaks the rules or the budget here.
        """
        memory = {"device_budget_bytes": budget_bytes + held_bytes}
        try:
            reply = self._client.plan({**request, "memory": memory})
        except Exception as error:
            minimum = getattr(error, "problem", {}).get("minimum_budget_bytes")
            if minimum is None:
                raise
            needed = int(minimum) - held_bytes
            raise BudgetTooSmall(budget_bytes=budget_bytes, minimum_budget_bytes=needed) from error
        segment_steps = reply.segment_steps
        if segment_steps is None:
            raise PlanMismatch("the service planned a chain of its own, not segments of this loop")
        chain = report.chain(report.length, segment_steps)
        answer = (reply.strategy, policy_from_record(dict(reply.policy)))
        plan = _checked_plan(report, segment_steps, chain, budget_bytes, lambda _chain, _budget: answer)
        return plan, reply.id

    def post_measurement(self, measurement: Mapping[str, Any]) -> None:
        """Report a training run."""
        self._client.post_measurement(measurement)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
