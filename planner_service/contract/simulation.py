"""The request to judge a schedule, and the judgement."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from planner_service.contract.base import Answer, invalid
from planner_service.contract.quantities import BudgetBytes, Count, SizeBytes
from planner_service.contract.question import Question
from planner_service.contract.tiers import TierUseRecord, WithTiers


class SimulationMemory(WithTiers):
    """The bytes against which a schedule is judged."""

    device_budget_bytes: BudgetBytes | None = None
    """An action that needs more is illegal; null: only the peak is reported."""
    reserved_bytes: SizeBytes = 0
    """What the process costs before the first tensor, counted as static."""


class SimulationRequest(Question):
    """POST /v1/simulations: a chain and a schedule, ours or anybody's."""

    segment_steps: Count | None = None
    """For a recurrent model: the segment length of the schedule. Null where the model is a chain."""
    memory: SimulationMemory = SimulationMemory()
    schedule: list[dict[str, Any]] | None = Field(default=None, max_length=5_000_000, fail_fast=True)
    """Actions in order: {"action": "advance" | "tape" | "backward", "first": …, "last": …},
    {"action": "free", "state": …}; where stages have a reversal also {"action": "archive" | "undo",
    "first": …, "last": …}; with tiers also {"action": "move", "first": …, "last": …} and
    {"action": "store" | "fetch" | "discard", "state": …, "tier": name}. Give either this or `policy`."""
    policy: dict[str, Any] | None = None
    """A policy as a plan carries it."""
    timeline_points: int = Field(default=500, ge=0, le=10_000, strict=True)
    """At most so many points of the memory timeline; longer schedules are thinned, peaks kept."""

    @model_validator(mode="after")
    def _what_is_judged_is_given_once(self) -> Self:
        if (self.schedule is None) == (self.policy is None):
            raise invalid("schedule", "give either a schedule or a policy")
        if (self.segment_steps is None) != (self.model.kind == "chain"):
            reason = "steps of one stage of the schedule: needed for a recurrent model, and only there"
            raise invalid("segment_steps", reason)
        return self


class IllegalRecord(Answer):
    """The first action that breaks a rule."""

    index: int
    """Position in the schedule, from 0; its length when the schedule ends too early."""
    action: dict[str, int | str] | None
    """Null when the schedule ends too early."""
    reason: str


class TimelinePoint(Answer):
    """What happened up to and including one action (or a few, where the timeline is thinned)."""

    index: int
    """Position of the action (the last of a few) in the schedule, from 0."""
    elapsed_cost: float
    """Cost up to the end of the action, waiting for transfers included."""
    peak_bytes: int
    """Most bytes live while it ran (while any of a few ran)."""
    live_bytes: int
    """Bytes live after it, on the device."""


class SimulationReply(Answer):
    """The judgement: legal or not, and what was counted up to there."""

    legal: bool
    illegal: IllegalRecord | None
    makespan: float
    """Cost of the legal actions, waiting for transfers included, in the chain's unit."""
    unit: Literal["forward", "seconds"]
    peak_bytes: int
    """The most that is live on the device."""
    advance_count: int
    """Stages run without a tape; a stage that is advanced twice counts twice."""
    tape_count: int
    """Stages run with a tape."""
    undo_count: int = 0
    """Stages undone: computed back from the state after them."""
    backward_count: int
    """Stages reversed from their tapes."""
    action_count: int
    """Actions judged: all of them where the schedule is legal."""
    store_all_makespan: float
    overhead_ratio: float
    """makespan / store_all_makespan - 1."""
    stall_seconds: float = 0
    """What of the makespan is waiting for transfers, in the makespan's unit."""
    tiers: list[TierUseRecord] = Field(default=[])
    """What was done with each tier of the request, in its order."""
    timeline: list[TimelinePoint]
