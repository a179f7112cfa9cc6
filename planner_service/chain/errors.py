"""What can go wrong with a chain, a schedule or a budget, as exceptions with the numbers as fields.

Each class names the request field it is about (`field`), so that the service can point at it and a
program need not read prose.
"""

from __future__ import annotations


class PlanningError(Exception):
    """Base of every refusal: the message says what was given, what is needed and what to do."""

    field: str = ""


class InvalidChain(PlanningError, ValueError):
    """A chain, stage or policy contradicts itself (negative bytes, NaN costs, wrong length)."""

    def __init__(self, message: str, *, field: str = "model") -> None:
        self.field = field
        super().__init__(message)


class BudgetTooSmall(PlanningError):
    """No policy fits the budget; `minimum_budget_bytes` is the least budget that would."""

    field = "memory.device_budget_bytes"

    def __init__(self, *, budget_bytes: int, minimum_budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.minimum_budget_bytes = minimum_budget_bytes
        super().__init__(
            f"a budget of {budget_bytes} bytes is {minimum_budget_bytes - budget_bytes} bytes short: "
            f"the leanest policy needs {minimum_budget_bytes} bytes"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_budget_too_small, (self.budget_bytes, self.minimum_budget_bytes))


def _rebuild_budget_too_small(budget_bytes: int, minimum_budget_bytes: int) -> BudgetTooSmall:
    return BudgetTooSmall(budget_bytes=budget_bytes, minimum_budget_bytes=minimum_budget_bytes)
