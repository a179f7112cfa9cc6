"""Asks the planner, in process or over HTTP. The only module here that imports one.

A probe gives one chain per segment length; the planner is asked about each, and the quickest plan wins.
Whoever made a plan, it is replayed here by the simulator before it is run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from functools import partial
from itertools import chain as concatenated
from typing import Any, NamedTuple, Protocol

from executor.errors import BudgetTooSmall, PlanMismatch
from executor.native.environment import API_KEY
from executor.offload.host import HostMemory
from executor.plan import ExecutionPlan
from executor.probe_report import ProbeReport
from planner_service.chain import (
    ArchiveNode,
    Chain,
    PlanningError,
    Policy,
    Tier,
    TieredPolicy,
    policy_from_record,
    stage_record,
    tiered_policy_from_record,
    without_reversals,
)

AnyPolicy = Policy | TieredPolicy
Tiers = tuple[Tier, ...]


class AskPlanner(Protocol):
    """Answers a chain and a budget in bytes with a strategy's name and its policy."""

    def __call__(
        self, chain: Chain, budget_bytes: int, tiers: Tiers = (), most_archived: int | None = None
    ) -> tuple[str, AnyPolicy]:
        """`tiers` may take states; no more than `most_archived` stages may be archived at once.

        Raises BudgetTooSmall.
        """
        ...


PLANNING_SECONDS = 120.0
"""How long a service is waited for: longer than its own limit, so that its refusal arrives."""
MANY_SEGMENTS = 4096
"""Chains longer than this take long to plan; they are asked about only where no shorter one fits."""
TAPES_ON_HOST = "host_tapes"
"""The strategy of plans that archive stages by moving their tapes to host memory."""
MANY_SEGMENTS_WITH_TIERS = 3_000
"""Longer ones are planned for the device alone."""


def best_plan(
    report: ProbeReport, budget_bytes: int, ask: AskPlanner, host: HostMemory | None = None
) -> ExecutionPlan:
    """The quickest plan within `budget_bytes` over every segment length of `report`, with `host` beside
    the device where it is given.

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
            tiers = host.tiers(chain) if host is not None else ()
            tapes = report.host_tapes(segment_steps)
            answer = ask(chain, budget_bytes, tiers, None if tapes is None else tapes.most)
            found = _checked_plan(report, chain, segment_steps, budget_bytes, answer, tiers)
        except BudgetTooSmall as refusal:
            refusals.append(refusal.with_traceback(None))  # a traceback holds this frame, so the loop
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
    report: ProbeReport,
    chain: Chain,
    segment_steps: int,
    budget_bytes: int,
    answer: tuple[str, AnyPolicy],
    tiers: Tiers = (),
) -> ExecutionPlan:
    """The plan that `answer` makes, replayed by the simulator. Raises PlanMismatch if it does not hold."""
    strategy, policy = answer
    tapes = report.host_tapes(segment_steps)
    if tapes is not None and any(isinstance(node, ArchiveNode) for node in policy.nodes):
        strategy = TAPES_ON_HOST
    else:
        tapes = None
    plan = ExecutionPlan(
        length=report.length,
        segment_steps=segment_steps,
        policy=policy,
        strategy=strategy,
        tiers=tiers if isinstance(policy, TieredPolicy) else (),
        host_tapes=tapes,
    )
    verdict = plan.replayed(chain, budget_bytes)
    if not verdict.legal:
        raise PlanMismatch(f"the planner's {strategy} plan does not hold: {verdict.illegal}")
    return replace(plan, projected_peak_bytes=verdict.peak_bytes, makespan_seconds=verdict.makespan)


def in_process(
    chain: Chain, budget_bytes: int, tiers: Tiers = (), most_archived: int | None = None
) -> tuple[str, AnyPolicy]:
    """Ask the solvers in this process. States go to tiers where that is faster, and in chains that are
    not too long to find out.
    """
    from planner_service.solvers import solve

    if tiers and chain.length <= MANY_SEGMENTS_WITH_TIERS:
        return _beside_tiers(chain, budget_bytes, tiers, most_archived)
    solution = solve(chain, budget_bytes, most_archived=most_archived)
    return solution.strategy, solution.policy


def simulated_in_process(question: Mapping[str, Any]) -> int | None:
    """The peak of a simulation request's policy, in bytes; None where it is refused, and on a machine that
    has nothing of the service: its formulas speak pydantic.
    """
    try:
        from planner_service.contract import SimulationRequest
        from planner_service.planning import Planner
    except ModuleNotFoundError:
        return None
    try:
        return Planner().simulate(SimulationRequest.model_validate(question)).peak_bytes
    except (PlanningError, ValueError):
        return None


def _beside_tiers(
    chain: Chain, budget_bytes: int, tiers: Tiers, most_archived: int | None
) -> tuple[str, AnyPolicy]:
    from planner_service.solvers import solve
    from planner_service.solvers.offload.solve import solve_offload

    found: list[tuple[float, str, AnyPolicy]] = []
    refusals: list[BudgetTooSmall] = []
    # What is undone needs no state that has gone; the second may need more than the first.
    asked = (
        partial(solve, chain, most_archived=most_archived),
        partial(solve_offload, without_reversals(chain), tiers=tiers),
    )
    for ask in asked:
        try:
            solution = ask(budget_bytes=budget_bytes)
        except BudgetTooSmall as refusal:
            refusals.append(refusal.with_traceback(None))  # a traceback holds this frame, so the loop
        else:
            found.append((solution.verdict.makespan, solution.strategy, solution.policy))
    if not found:
        raise min(refusals, key=lambda refusal: refusal.minimum_budget_bytes)
    _, strategy, policy = min(found, key=lambda answer: answer[0])
    return strategy, policy


def over_http(url: str) -> AskPlanner:
    """A planner that asks the service at `url`, whose errors are those of `planner_service.client`."""
    from planner_service.client import PlannerClient, PlannerRefused

    def ask(
        chain: Chain, budget_bytes: int, tiers: Tiers = (), most_archived: int | None = None
    ) -> tuple[str, AnyPolicy]:
        if most_archived is not None and most_archived < chain.length:  # a request cannot say so
            chain = without_reversals(chain)
        with PlannerClient(url, api_key=os.environ.get(API_KEY)) as client:
            try:
                reply = client.plan(_request(chain, budget_bytes, tiers))
            except PlannerRefused as refusal:
                if refusal.slug != "budget-too-small":
                    raise
                minimum = int(refusal.problem["minimum_budget_bytes"])
                raise BudgetTooSmall(budget_bytes=budget_bytes, minimum_budget_bytes=minimum) from None
        return _answer(reply)

    return ask


def _answer(reply: Any) -> tuple[str, AnyPolicy]:
    """Strategy and policy of a plan's reply; where states went to tiers, of those."""
    read = tiered_policy_from_record if reply.memory.tiers else policy_from_record
    return reply.strategy, read(dict(reply.policy))


def _request(chain: Chain, budget_bytes: int, tiers: Tiers) -> dict[str, Any]:
    return {
        "model": {
            "kind": "chain",
            "input_bytes": chain.input_bytes,
            "static_bytes": chain.static_bytes,
            "loss_gradient_bytes": chain.loss_gradient_bytes,
            "input_gradient_bytes": chain.input_gradient_bytes,
            "stages": [{"count": run.count, **stage_record(run.stage)} for run in chain.runs],
        },
        "memory": {"device_budget_bytes": budget_bytes, "tiers": [asdict(tier) for tier in tiers]},
    }


class ServicePlan(NamedTuple):
    """A plan that a service made."""

    plan: ExecutionPlan
    plan_id: str


class RemotePlanner:
    """A planning service that is asked for whole models: one request, one plan with an id.

    Needs httpx and pydantic, which the rest does without. Every method raises PlannerUnreachable or
    PlannerRefused of `planner_service.client`.
    """

    def __init__(self, url: str, *, token: str | None = None) -> None:
        from planner_service.worker_client import WorkerClient

        self._client = WorkerClient(
            url, token=token or os.environ.get(API_KEY), timeout_seconds=PLANNING_SECONDS
        )

    def plan(
        self,
        report: ProbeReport,
        budget_bytes: int,
        *,
        request: Mapping[str, Any],
        held_bytes: int,
        host: HostMemory | None = None,
    ) -> ServicePlan:
        """The service's plan for the loop of `report`, and its id.

        `request` describes the model, the sequence and the training, and carries the profile. The service
        counts `held_bytes` besides the call: what the caller holds throughout. States may move to `host`.

        Raises BudgetTooSmall, and PlanMismatch for a plan that breaks the rules or the budget here.
        """
        tiers: Tiers = ()
        if host is not None:  # a state has the same size whatever the segment
            tiers = host.tiers(report.chain(report.length, report.segments[0].segment_steps))
        memory: dict[str, Any] = {"device_budget_bytes": budget_bytes + held_bytes}
        if tiers:
            memory["tiers"] = [asdict(tier) for tier in tiers]
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
        plan = _checked_plan(report, chain, segment_steps, budget_bytes, _answer(reply), tiers)
        return ServicePlan(plan, reply.id)

    def simulated_peak_bytes(self, question: Mapping[str, Any]) -> int | None:
        """The peak of a simulation request's policy; None where the service does not answer it."""
        from planner_service.client import PlannerError

        try:
            return self._client.simulate(question).peak_bytes
        except PlannerError:
            return None

    def post_measurement(self, measurement: Mapping[str, Any]) -> None:
        """Report a training run."""
        self._client.post_measurement(measurement)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
