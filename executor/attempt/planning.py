"""The plan of an attempt: the earlier attempt's where it still holds, else the service's, else our own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from executor.attempt.task import Task
from executor.errors import PlanMismatch
from executor.jobs.computed_peak import computed_peak_bytes
from executor.jobs.prepared import PreparedJob
from executor.jobs.slowdown import require_quick
from executor.jobs.training import held_bytes
from executor.memory.device import device_name
from executor.plan import ExecutionPlan
from executor.planner import RemotePlanner, ServicePlan, best_plan, in_process
from executor.service.link import Refused, Unanswered, answered, send_profile, simulated_peak_bytes
from planner_service.chain import InvalidChain, Policy, policy_from_record

TRIES = 6
FIRST_PAUSE_SECONDS = 0.5
"""Doubled after every try: a service that restarts is waited for, for half a minute in all."""
_NOT_OURS_TO_ASK = (401, 403)

Say = Callable[[str], None]


@dataclass(frozen=True)
class StoredPlan:
    """A plan with its id at the service, as it is kept in a weights file."""

    plan: ExecutionPlan
    plan_id: str | None

    def text(self) -> str | None:
        """As JSON; None for a plan that moves states or tapes, which is one machine's."""
        plan = self.plan
        if not isinstance(plan.policy, Policy) or plan.host_tapes is not None:
            return None
        return json.dumps(
            {
                "plan_id": self.plan_id,
                "length": plan.length,
                "segment_steps": plan.segment_steps,
                "policy": plan.policy.record(),
                "projected_peak_bytes": plan.projected_peak_bytes,
                "makespan_seconds": plan.makespan_seconds,
                "strategy": plan.strategy,
            }
        )

    @classmethod
    def of(cls, text: str) -> StoredPlan:
        """The plan in `text`. Raises ValueError, KeyError or PlanMismatch for a malformed one."""
        fields: dict[str, Any] = json.loads(text)
        plan_id = fields.pop("plan_id")
        policy = policy_from_record(fields.pop("policy"))
        return cls(ExecutionPlan(policy=policy, **fields), plan_id)


def plan_attempt(
    prepared: PreparedJob, task: Task, *, earlier: str | None, wait: Callable[[float], None], say: Say
) -> StoredPlan:
    """The plan for `task`; `wait(seconds)` pauses between tries and may raise.

    Raises BudgetTooSmall, SlowdownTooGreat, Unanswered.
    """
    kept = None if earlier is None else _still_holds(prepared, earlier)
    plan = kept or _asked(prepared, task, wait, say)
    if kept is not None:
        say("the earlier attempt's plan still fits: kept, so that every sum is added in the same order")
    require_quick(prepared, plan.plan, task.maximum_slowdown_ratio)
    return plan


def share_profile(prepared: PreparedJob, task: Task, say: Say) -> None:
    """Send the service what this attempt's probe measured. It is a gift: no answer costs the attempt."""
    try:
        profile = {**prepared.profile(), "device_name": device_name(prepared.loss.device)}
        profile_id = answered(lambda: send_profile(task.planner_url, profile, token=task.planner_token))
        say(f"profile {profile_id} at the service")
    except (Unanswered, Refused) as error:
        say(f"the profile was not taken: {error}")


def peak_by_formulas(prepared: PreparedJob, task: Task, plan: ExecutionPlan) -> int | None:
    """`computed_peak_bytes` by the service; None where nobody answers."""

    def simulated(question: Mapping[str, Any]) -> int | None:
        try:
            return answered(
                lambda: simulated_peak_bytes(task.planner_url, question, token=task.planner_token)
            )
        except (Unanswered, Refused):
            return None

    return computed_peak_bytes(prepared, plan, simulated)


def _still_holds(prepared: PreparedJob, text: str) -> StoredPlan | None:
    """The earlier plan, if by this machine's probe it fits this attempt's budget."""
    try:
        stored = StoredPlan.of(text)
        chain = prepared.probe.chain(stored.plan.length, stored.plan.segment_steps)
    except (ValueError, KeyError, TypeError, PlanMismatch, InvalidChain):
        return None
    return stored if stored.plan.replayed(chain, prepared.budget_bytes).legal else None


def _asked(prepared: PreparedJob, task: Task, wait: Callable[[float], None], say: Say) -> StoredPlan:
    pause = FIRST_PAUSE_SECONDS
    for remaining in reversed(range(TRIES)):
        try:
            answer = answered(lambda: _from_service(prepared, task))
        except Unanswered:
            if not remaining:
                raise
            wait(pause)
            pause *= 2
        except Refused as refusal:
            if refusal.status not in _NOT_OURS_TO_ASK:
                raise
            say(f"{refusal}: planning in this process instead")
            own = best_plan(prepared.probe, prepared.budget_bytes, in_process, prepared.host())
            return StoredPlan(own, None)
        else:
            return StoredPlan(answer.plan, answer.plan_id)
    raise AssertionError("unreachable")


def _from_service(prepared: PreparedJob, task: Task) -> ServicePlan:
    held = held_bytes(prepared.model, prepared.window, prepared.job.training)
    planner = RemotePlanner(task.planner_url, token=task.planner_token)
    request: Mapping[str, Any] = {**prepared.request(), "strategy": task.strategy}
    try:
        return planner.plan(
            prepared.probe,
            prepared.budget_bytes,
            request=request,
            held_bytes=held,
            host=prepared.host(),
        )
    finally:
        planner.close()
