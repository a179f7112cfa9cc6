"""The request for a plan, and the plan."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from planner_service.contract.base import Answer
from planner_service.contract.models import Memory
from planner_service.contract.profile import LedgerLineRecord
from planner_service.contract.question import Question


class PlanRequest(Question):
    """POST /v1/plans: which model, how long a sequence, how many bytes."""

    memory: Memory
    strategy: str = Field(default="auto", min_length=1, max_length=64)


class PlanCost(Answer):
    """What the plan costs, as the simulator's replay counted it."""

    makespan: float
    """In `unit`."""
    unit: Literal["forward", "seconds"]
    """forward: the forward pass of one step is 1 (for a chain: the request's own unit)."""
    store_all_makespan: float
    """Full BPTT without a budget, in `unit`."""
    overhead_ratio: float
    """makespan / store_all_makespan - 1."""
    advance_count: int
    tape_count: int
    lower_bound: float
    """No schedule within the budget is cheaper, in `unit`."""
    gap_ratio: float
    """makespan / lower_bound - 1: what an optimum could still save at most."""
    optimality: Literal["optimal", "persistent", "bounded"]


class PlanMemory(Answer):
    """What the plan holds at its peak; the lines of the ledger add up to `projected_peak_bytes`."""

    budget_bytes: int
    projected_peak_bytes: int
    store_all_peak_bytes: int
    minimum_budget_bytes: int
    """The least budget that could be planned, over all segment lengths."""
    ledger: list[LedgerLineRecord]


class PlanReply(Answer):
    """A plan: the policy to execute, with its projected cost and memory."""

    id: str
    """Hash of the canonical request and the planner's version."""
    planner_version: str
    strategy: str
    """What `auto` chose."""
    exact_gradient: bool
    """True when the gradient equals that of full BPTT in real arithmetic."""
    reason: str
    """Why this strategy and this segment length."""
    cost: PlanCost
    memory: PlanMemory
    segment_steps: int | None
    """k: steps per segment; null for a chain, whose stages are given."""
    segment_count: int
    """Stages of the planned chain."""
    last_segment_steps: int | None
    """Steps of the last segment, which may be shorter; null for a chain."""
    policy: dict[str, Any]
    """{root, nodes: [["tape", span, rest] | ["checkpoint", span, right, left], …]}, children first."""
