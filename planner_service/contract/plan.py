"""The request for a plan, and the plan."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from planner_service.contract.base import Answer, invalid
from planner_service.contract.models import Memory
from planner_service.contract.profile import LedgerLineRecord
from planner_service.contract.question import Question
from planner_service.contract.tiers import TierUseRecord

OFFLOAD = "offload"
"""The strategy that moves stored states to tiers."""


class PlanRequest(Question):
    """POST /v1/plans: which model, how long a sequence, how many bytes."""

    memory: Memory
    strategy: str = Field(default="auto", min_length=1, max_length=64)

    @model_validator(mode="after")
    def _offload_has_somewhere_to_go(self) -> Self:
        if self.strategy == OFFLOAD and not self.memory.tiers:
            raise invalid("memory.tiers", f"strategy={OFFLOAD!r} needs a tier to move states to")
        return self


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
    """Stages run without a tape; a stage that is advanced twice counts twice."""
    tape_count: int
    """Stages run with a tape."""
    undo_count: int = 0
    """Stages undone: computed back from the state after them."""
    lower_bound: float
    """No schedule within the budget is cheaper, in `unit`."""
    gap_ratio: float
    """makespan / lower_bound - 1: what an optimum could still save at most."""
    optimality: Literal["optimal", "persistent", "bounded"]
    """optimal: no schedule within the budget is cheaper; persistent: none whose checkpoints stay until
    their stage is reversed; bounded: only `lower_bound` is known."""
    stall_seconds: float = 0
    """What of the makespan is waiting for transfers to and from tiers, in `unit`."""


class PlanLedgerLine(LedgerLineRecord):
    """One item of what a plan holds. As of every answer, readers ignore fields that they do not know."""

    model_config = ConfigDict(extra="ignore")

    tier: str | None = None
    """The tier that holds it; null: the device."""


class PlanMemory(Answer):
    """What the plan holds at its peak, on the device and in each tier."""

    budget_bytes: int
    """Bytes allowed on the device: those of the request."""
    projected_peak_bytes: int
    """The most that the plan holds on the device: an upper bound, at most the budget."""
    store_all_peak_bytes: int
    """What full BPTT would hold."""
    minimum_budget_bytes: int
    """The least budget that could be planned beside these tiers, over all segment lengths."""
    ledger: list[PlanLedgerLine]
    """The lines of the device (`tier` is null) add up to `projected_peak_bytes`."""
    tiers: list[TierUseRecord] = Field(default=[])
    """What the plan does with each tier of the request, in its order; empty when it uses none."""


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
    """{root, nodes: [["tape", span, rest] | ["checkpoint", span, right, left] | ["archive", span, rest], …]},
    children first; with tiers also ["offload" | "leave", span, tier, right, left],
    ["keep" | "prefetch", rest] and ["copy", tier, rest]."""
