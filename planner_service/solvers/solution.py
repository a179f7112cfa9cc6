"""What a solver answers, and the ways in which it may decline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from planner_service.chain import PlanningError, Policy, Verdict

ROUNDING = 1e-9
"""Relative error that sums of costs in another order may show."""

Optimality = Literal["optimal", "persistent", "bounded"]


@dataclass(frozen=True)
class Solution:
    """A policy that fits its budget, as the simulator saw it."""

    strategy: str
    """The strategy that was used; `auto` is resolved."""
    policy: Policy
    verdict: Verdict
    """The simulator's replay of the policy: its makespan and peak are the plan's."""
    lower_bound: float
    """No legal schedule of this chain in this budget is cheaper, in the chain's cost unit."""
    optimality: Optimality
    """`optimal` over all schedules, `persistent` over those whose checkpoints stay until their stage
    is reversed, `bounded` when only `lower_bound` is known."""
    exact_gradient: bool
    """True when the gradient is that of full backpropagation through time."""
    reason: str
    """Why this strategy, and what limits the answer."""
    exact_search: bool = False
    """Whether no byte was rounded and nothing left untried: its own peak then has a plan as quick."""


class ScheduleTooLong(PlanningError):
    """So little memory for so many stages that nearly every one needs decisions of its own."""

    field = "memory.device_budget_bytes"

    def __init__(self, *, length: int, most_decisions: int) -> None:
        self.length = length
        self.most_decisions = most_decisions
        super().__init__(
            f"the policy of {length} stages in this budget has more than {most_decisions} decisions, and its "
            "schedule many more actions: give more bytes, or run several steps as one segment"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_schedule_too_long, (self.length, self.most_decisions))


def _rebuild_schedule_too_long(length: int, most_decisions: int) -> ScheduleTooLong:
    return ScheduleTooLong(length=length, most_decisions=most_decisions)


class UnknownStrategy(PlanningError, ValueError):
    """No strategy has this name."""

    field = "strategy"

    def __init__(self, *, strategy: str, known: tuple[str, ...]) -> None:
        self.strategy = strategy
        self.known = known
        super().__init__(f"strategy={strategy!r} is unknown: choose one of {', '.join(known)}")

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_unknown_strategy, (self.strategy, self.known))


def _rebuild_unknown_strategy(strategy: str, known: tuple[str, ...]) -> UnknownStrategy:
    return UnknownStrategy(strategy=strategy, known=known)


class Cancelled(PlanningError):
    """The solve was cancelled before it had an answer."""

    def __init__(self) -> None:
        super().__init__("the solve was cancelled before it had an answer")


class Cancellation:
    """A flag that another thread may set; kernels poll it while they run without the interpreter lock."""

    def __init__(self) -> None:
        self.flag: NDArray[np.uint8] = np.zeros(1, dtype=np.uint8)
        """Shape (1,); not zero once cancelled."""

    def cancel(self) -> None:
        """Ask the solve to stop; it raises Cancelled soon after."""
        self.flag[0] = 1

    @property
    def cancelled(self) -> bool:
        """True once `cancel` was called."""
        return bool(self.flag[0])

    def check(self) -> None:
        """Raise Cancelled if `cancel` was called."""
        if self.cancelled:
            raise Cancelled
