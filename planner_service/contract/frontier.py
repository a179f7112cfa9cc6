"""The request for all budgets at once, and the frontier."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from planner_service.contract.base import Answer, Message, invalid
from planner_service.contract.quantities import BudgetBytes, SizeBytes
from planner_service.contract.question import Question


class FrontierMemory(Message):
    """What is known about the bytes before a budget is chosen."""

    reserved_bytes: SizeBytes = 0
    """What the process costs before the first tensor."""

    @model_validator(mode="before")
    @classmethod
    def _is_of_the_device_alone(cls, given: Any) -> Any:
        if isinstance(given, dict) and "tiers" in given:
            raise invalid("tiers", "a frontier is that of the device alone: plan budget by budget for tiers")
        return given


class FrontierRequest(Question):
    """POST /v1/frontiers: what does each budget buy?"""

    memory: FrontierMemory = FrontierMemory()
    points: int = Field(default=25, ge=2, le=500, strict=True)
    """At most so many points, from the least budget to that of full BPTT."""
    at_most_overhead_ratio: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Ask for the least budget with a makespan of at most (1 + this) times that of full BPTT."""
    at_most_bytes: BudgetBytes | None = None
    """Ask for the least makespan within so many bytes."""


class FrontierPoint(Answer):
    """One plan that no other point beats in both bytes and makespan."""

    budget_bytes: int
    """A budget under which it runs."""
    makespan: float
    """Planning this budget gives this makespan or a lower one."""
    overhead_ratio: float
    """makespan / store_all_makespan - 1."""
    segment_steps: int | None
    """Steps per segment of the plan; null for a chain."""
    saving_per_mebibyte: float | None
    """What the next MiB saves, in the makespan's unit: the slope to the next point; null at the last."""


class FrontierReply(Answer):
    """Non-dominated (bytes, makespan) pairs, bytes ascending."""

    unit: Literal["forward", "seconds"]
    exact_gradient: bool = True
    """False when `training.gradient_sparsity` drops a part of the gradient."""
    points: list[FrontierPoint]
    knee: FrontierPoint
    """The point farthest below the straight line from the first point to the last."""
    minimum_budget_bytes: int
    """The least budget that could be planned."""
    store_all_makespan: float
    store_all_peak_bytes: int
    """What full BPTT holds: a larger budget buys nothing."""
    least_bytes: FrontierPoint | None
    """The answer to `at_most_overhead_ratio`: the cheapest in bytes that was found."""
    not_enough_bytes: int | None
    """A budget that was tried and is too small for it; what lies between was not tried."""
    least_makespan: FrontierPoint | None
    """The answer to `at_most_bytes`."""
