"""Solvers: from a chain and a byte budget to the cheapest policy that fits. Pure; numpy and numba only."""

from planner_service.solvers.frontier import affordable_points, frontier, sufficient_bytes
from planner_service.solvers.frontier_points import FrontierPoint, knee, non_dominated
from planner_service.solvers.frontier_sampling import sampled
from planner_service.solvers.optimal import minimum_budget_bytes
from planner_service.solvers.reversible import NotReversible
from planner_service.solvers.solution import (
    Cancellation,
    Cancelled,
    ScheduleTooLong,
    Solution,
    UnknownStrategy,
)
from planner_service.solvers.solve import REVERSIBLE, STRATEGIES, TRUNCATED, UnsoundPlan, solve, warm_up

__all__ = [
    "REVERSIBLE",
    "STRATEGIES",
    "TRUNCATED",
    "Cancellation",
    "Cancelled",
    "FrontierPoint",
    "NotReversible",
    "ScheduleTooLong",
    "Solution",
    "UnknownStrategy",
    "UnsoundPlan",
    "affordable_points",
    "frontier",
    "knee",
    "minimum_budget_bytes",
    "non_dominated",
    "sampled",
    "solve",
    "sufficient_bytes",
    "warm_up",
]
