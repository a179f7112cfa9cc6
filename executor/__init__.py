"""tightfit's executor: train unrolled PyTorch models inside a byte budget, exactly."""

from importlib.util import find_spec

if find_spec("torch") is None:
    raise ModuleNotFoundError("training needs PyTorch: pip install 'tightfit[worker]'", name="torch")

from executor.errors import (
    BudgetTooSmall,
    CaptureError,
    ConcurrentUse,
    DependentCaptures,
    DoubleBackward,
    ExecutorError,
    GradientLost,
    GrowingMemory,
    HostMemoryRefused,
    ModifiedBetweenPasses,
    PlanMismatch,
    ProfilerBusy,
    ReplayError,
    ReversalMismatch,
    SparseGradients,
    StateChanged,
    StateMutated,
    UnsupportedBackward,
    UnsupportedCollective,
    UnsupportedHook,
    UnsupportedOutput,
    UnsupportedTransform,
)
from executor.measure import Measurement, measure, measure_timeline
from executor.memory.budget import InvalidBudget
from executor.modules import GRU, LSTM, RNN
from executor.plan import ExecutionPlan
from executor.predict import Prediction, predict, probe
from executor.probe_report import ProbeReport
from executor.replay import is_recomputing, outputs_needed
from executor.unroll import unroll

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "BudgetTooSmall",
    "CaptureError",
    "ConcurrentUse",
    "DependentCaptures",
    "DoubleBackward",
    "ExecutionPlan",
    "ExecutorError",
    "GradientLost",
    "GrowingMemory",
    "HostMemoryRefused",
    "InvalidBudget",
    "Measurement",
    "ModifiedBetweenPasses",
    "PlanMismatch",
    "Prediction",
    "ProbeReport",
    "ProfilerBusy",
    "ReplayError",
    "ReversalMismatch",
    "SparseGradients",
    "StateChanged",
    "StateMutated",
    "UnsupportedBackward",
    "UnsupportedCollective",
    "UnsupportedHook",
    "UnsupportedOutput",
    "UnsupportedTransform",
    "is_recomputing",
    "measure",
    "measure_timeline",
    "outputs_needed",
    "predict",
    "probe",
    "unroll",
]
