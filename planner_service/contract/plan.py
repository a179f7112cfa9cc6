"""The request for a plan, and the plan."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from planner_service.contract.base import Answer, Message
from planner_service.contract.models import Memory, Model, Sequence, Training
from planner_service.contract.profile import LedgerLineRecord, ProfileRecord


class PlanRequest(Message):
    """POST /v1/plans: which model, how long a sequence, how many bytes."""

    model: Model
    sequence: Sequence | None = None
    """Needed for a recurrent model; a chain brings its own length."""
    training: Training | None = None
    memory: Memory
    strategy: str = Field(default="auto", min_length=1, max_length=64)
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the plan will run: it decides which byte formulas apply without a profile."""
    profile: ProfileRecord | None = None
    """What a probe measured of this very model; used as it stands where it matches."""

    @model_validator(mode="after")
    def _sequence_goes_with_the_model(self) -> Self:
        recurrent = self.model.kind != "chain"
        if recurrent and self.sequence is None:
            raise _at("sequence", f"model.kind={self.model.kind!r} needs a sequence with a length")
        if not recurrent:
            for name in ("sequence", "training", "profile"):
                if getattr(self, name) is not None:
                    raise _at(name, f"a chain brings its own stages: leave {name} out")
        return self


def _at(field: str, reason: str) -> PydanticCustomError:
    """An error of the whole request that is about one of its fields."""
    return PydanticCustomError("request", "{reason}", {"reason": reason, "field": field})


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
