"""The first call of a loop looks at it and rehearses it, and keeps its budget meanwhile."""

from __future__ import annotations

import contextlib
import gc
import importlib

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from executor import unroll  # noqa: E402
from executor.errors import BudgetTooSmall  # noqa: E402
from executor.memory.trace import Recording  # noqa: E402
from executor.reversible import NFRevLSTM, RevGRU, RevLSTM  # noqa: E402
from executor.sparse import SparseGRU, SparseLSTM  # noqa: E402

torch.set_num_threads(1)

STREAM_BYTES = torch.get_rng_state().nbytes
"""What a look, and a rehearsal, put back afterwards; each has one copy."""


@pytest.fixture
def everything(monkeypatch):
    """The peak of all that a function allocates, probes included: their recordings are parts of one."""
    costs = importlib.import_module("executor.probing.action_costs")
    trace = importlib.import_module("executor.memory.trace")
    whole = []

    def record(function):
        whole[-1].stop()
        part = Recording()
        trace._open.append(part)
        part.start()
        try:
            result = function()
        finally:
            part.stop()
            trace._open.remove(part)
            whole[-1]._events.extend(part._events)
            whole[-1].start()
        return part, result

    monkeypatch.setattr(costs, "record", record)
    for name in ("probe", "known"):
        module = importlib.import_module(f"executor.{name}")
        monkeypatch.setattr(module, "paused", contextlib.nullcontext)

    def peak(function):
        gc.collect()
        whole.append(Recording())
        whole[-1].start()
        function()
        whole[-1].stop()
        return max(sample.live_bytes for sample in whole[-1].samples())

    return peak


def of_cells(kind, reduce):
    cell, x, zeros = getattr(nn, f"{kind}Cell")(16, 16), torch.randn(40, 8, 16), torch.zeros(8, 16)

    def step(state, x_t):
        state = cell(x_t, state)
        h = state[0] if isinstance(state, tuple) else state
        return state, h if reduce == "stack" else h.square().mean()

    state = (zeros, zeros.clone()) if kind == "LSTM" else zeros
    return {"step": step, "state": state, "inputs": x, "module": cell, "reduce": reduce}


def of_layers(module, *, steps, batch, reduce="sum", needs_input_gradient=False):
    x = torch.randn(steps, batch, 5, requires_grad=needs_input_gradient)

    def segment(state, given):
        state, y = module.segment(state, given)
        return state, y if reduce == "stack" else y.square().sum()

    return {
        "step": None,
        "state": module.initial_state(batch),
        "inputs": x,
        "segment": segment,
        "module": module,
        "reduce": reduce,
    }


LOOPS = {
    "GRUCell": lambda: of_cells("GRU", "sum"),
    "LSTMCell, stacked": lambda: of_cells("LSTM", "stack"),
    "RNNCell": lambda: of_cells("RNN", "sum"),
    "RevLSTM": lambda: of_layers(RevLSTM(5, 64), steps=12, batch=5, needs_input_gradient=True),
    "RevGRU, two layers": lambda: of_layers(RevGRU(5, 16, 2), steps=6, batch=4),
    "RevLSTM, scheduled": lambda: of_layers(
        RevLSTM(5, 64, forget_bits=1, coding="scheduled"), steps=6, batch=1, reduce="stack"
    ),
    "NFRevLSTM": lambda: of_layers(NFRevLSTM(5, 64), steps=6, batch=1, reduce="stack"),
    "SparseLSTM": lambda: of_layers(SparseLSTM(5, 32, rule="top"), steps=20, batch=8),
    "SparseGRU, small": lambda: of_layers(
        SparseGRU(5, 6, 2, rule="top", error_feedback=True), steps=20, batch=5
    ),
    "SparseGRU, error feedback": lambda: of_layers(
        SparseGRU(5, 32, rule="top", error_feedback=True), steps=20, batch=8
    ),
}


def call(loop, budget):
    for parameter in loop["module"].parameters():
        parameter.grad = None
    outputs, _ = unroll(loop["step"], budget=budget, **{k: v for k, v in loop.items() if k != "step"})
    outputs.backward(torch.ones_like(outputs))


@pytest.mark.parametrize("name", LOOPS)
def test_the_first_call_keeps_its_budget_while_it_rehearses(name, everything):
    """The least budget, and some above it, of which each is met by a loop that nobody knows yet"""
    with pytest.raises(BudgetTooSmall) as refusal:
        everything(lambda: call(LOOPS[name](), 1))
    for ratio in (1, 1.4, 3):
        loop, budget = LOOPS[name](), int(ratio * refusal.value.minimum_budget_bytes)
        assert everything(lambda loop=loop, budget=budget: call(loop, budget)) <= budget + 2 * STREAM_BYTES
