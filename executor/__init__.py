"""tightfit's executor: train unrolled PyTorch models inside a byte budget, exactly."""

from executor.errors import (
    BudgetTooSmall,
    CaptureError,
    DependentCaptures,
    DoubleBackward,
    ExecutorError,
    ModifiedBetweenPasses,
    PlanMismatch,
    ReplayError,
    SparseGradients,
    StateChanged,
    StateMutated,
    UnsupportedOutput,
)
from executor.measure import measure, measure_timeline
from executor.modules import GRU, LSTM, RNN
from executor.plan import ExecutionPlan
from executor.predict import Prediction, predict, probe
from executor.probe import ProbeReport
from executor.replay import is_recomputing, outputs_needed
from executor.unroll import unroll

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "BudgetTooSmall",
    "CaptureError",
    "DependentCaptures",
    "DoubleBackward",
    "ExecutionPlan",
    "ExecutorError",
    "ModifiedBetweenPasses",
    "PlanMismatch",
    "Prediction",
    "ProbeReport",
    "ReplayError",
    "SparseGradients",
    "StateChanged",
    "StateMutated",
    "UnsupportedOutput",
    "is_recomputing",
    "measure",
    "measure_timeline",
    "outputs_needed",
    "predict",
    "probe",
    "unroll",
]
