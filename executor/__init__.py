"""tightfit's executor: train unrolled PyTorch models inside a byte budget, exactly."""

from executor.errors import (
    BudgetTooSmall,
    CaptureError,
    DoubleBackward,
    ExecutorError,
    ModifiedBetweenPasses,
    PlanMismatch,
    ReplayError,
    StateChanged,
    StateMutated,
    UnsupportedOutput,
)
from executor.plan import ExecutionPlan
from executor.replay import is_recomputing, outputs_needed
from executor.unroll import unroll

__all__ = [
    "BudgetTooSmall",
    "CaptureError",
    "DoubleBackward",
    "ExecutionPlan",
    "ExecutorError",
    "ModifiedBetweenPasses",
    "PlanMismatch",
    "ReplayError",
    "StateChanged",
    "StateMutated",
    "UnsupportedOutput",
    "is_recomputing",
    "outputs_needed",
    "unroll",
]
