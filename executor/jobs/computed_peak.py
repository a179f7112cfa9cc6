"""What the formulas alone project of a plan: the error before anything was probed, beside the one after."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from executor.jobs.prepared import PreparedJob
from executor.jobs.training import held_bytes
from executor.plan import ExecutionPlan
from planner_service.chain import Policy

Simulate = Callable[[Mapping[str, Any]], int | None]
"""The peak in bytes of a simulation request's policy; None where there is no answer."""


def computed_peak_bytes(prepared: PreparedJob, plan: ExecutionPlan, simulate: Simulate) -> int | None:
    """What the formulas project of this plan, in bytes that the call adds.

    None where they say nothing of it, or `simulate` has no answer.
    """
    if not isinstance(plan.policy, Policy):
        return None
    asked = prepared.request()
    asked.pop("profile", None)
    question = {
        **asked,
        "model": {**asked["model"], "implementation": "steps"},
        "segment_steps": plan.segment_steps,
        "policy": plan.policy.record(),
        "timeline_points": 0,
    }
    peak_bytes = simulate(question)
    if peak_bytes is None:
        return None
    state = prepared.model.initial_state(batch_size=prepared.job.sequence.batch_size)
    held = held_bytes(prepared.model, prepared.window, prepared.job.training)
    return int(peak_bytes - held - sum(part.nbytes for part in state))
