"""Search for the least budget whose plan is quick enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

Plan = TypeVar("Plan")

RESOLUTION = 1 / 128
"""The search stops when the gap left is this fraction of what the answer lies above the start."""


class Found(NamedTuple, Generic[Plan]):
    """The leanest plan that was found, and the largest budget that was seen to be too small."""

    plan: Plan
    not_enough_bytes: int | None


def least_budget(
    attempt: Callable[[int], Plan | None], *, low_bytes: int, high_bytes: int
) -> Found[Plan] | None:
    """Bisect the budgets low_bytes..high_bytes for the least one where `attempt` has a plan.

    `attempt(budget_bytes)` returns a plan, or None when there is none or it is not good enough; more
    bytes must not make it worse. None when even `high_bytes` is not enough.
    """
    best = attempt(high_bytes)
    if best is None:
        return None
    lowest = attempt(low_bytes)
    if lowest is not None:
        return Found(lowest, None)
    start_bytes = low_bytes
    while high_bytes - low_bytes > max(1, (high_bytes - start_bytes) * RESOLUTION):
        middle = (low_bytes + high_bytes) // 2
        plan = attempt(middle)
        if plan is None:
            low_bytes = middle
        else:
            best, high_bytes = plan, middle
    return Found(best, low_bytes)
