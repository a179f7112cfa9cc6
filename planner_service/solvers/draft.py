"""What a strategy proposes, before the simulator has judged it."""

from __future__ import annotations

from dataclasses import dataclass

from planner_service.chain import Policy
from planner_service.solvers.solution import Optimality


@dataclass(frozen=True)
class Draft:
    """A policy, with what its strategy knows about it."""

    strategy: str
    policy: Policy
    optimality: Optimality
    reason: str
    exact_gradient: bool = True
