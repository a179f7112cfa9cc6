"""The request to compare strategies, and the comparison."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from planner_service.contract.base import Answer
from planner_service.contract.models import Memory
from planner_service.contract.question import Question


class ComparisonRequest(Question):
    """POST /v1/comparisons: every strategy on one model, at equal bytes and at equal time."""

    memory: Memory


class ComparedStrategy(Answer):
    """One strategy's plan, or why it has none."""

    strategy: str
    fits: bool
    """False: there is no such plan, and `reason` says why."""
    exact_gradient: bool | None
    """False: the gradient is not that of full BPTT. Null without a plan."""
    makespan: float | None
    overhead_ratio: float | None
    """makespan / store_all_makespan - 1."""
    peak_bytes: int | None
    """The plan's projected peak."""
    budget_bytes: int | None = None
    """A budget in which the strategy has this plan or a quicker one: at equal bytes the request's, at equal
    time the least one known, which may be more than the plan's peak. Null without a plan."""
    minimum_budget_bytes: int | None
    """At equal bytes, where the budget is too small: the least that the strategy could do with."""
    segment_steps: int | None
    """Steps per segment of the plan; null for a chain, and without a plan."""
    reason: str


class ComparisonReply(Answer):
    """All strategies, the cheapest first."""

    unit: Literal["forward", "seconds"]
    budget_bytes: int
    """The budget of the request, in bytes."""
    reference_makespan: float | None
    """The makespan of `auto` within the budget, which at equal time nobody may exceed."""
    store_all_makespan: float
    exact_makespan: float | None = Field(default=None, exclude_if=lambda makespan: makespan is None)
    """With `training.gradient_sparsity`: what `auto` takes in the same budget for the exact gradient."""
    at_equal_bytes: list[ComparedStrategy]
    """The cheapest plan of each strategy within the budget."""
    at_equal_time: list[ComparedStrategy]
    """The leanest plan found of each strategy that is no slower than `reference_makespan`."""
