"""The projected peak is what a run measures: never below it, and within 0.1 % of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from executor import BudgetTooSmall, measure, predict, probe, unroll
from executor.plan import tape_everything
from executor.projection import projected_peak_bytes

BATCH, SIZE = 4, 32
FRACTIONS = {"least": 0.0, "5 %": 0.05, "30 %": 0.3, "ample": 1.5}


def cell_loop(kind: str, steps: int) -> dict[str, Any]:
    cell = getattr(nn, f"{kind}Cell")(SIZE, SIZE)

    def step(state: Any, x: Tensor) -> tuple[Any, Tensor]:
        state = cell(x, state)
        return state, state[0] if isinstance(state, tuple) else state

    return {"step": step, "state": initial(kind, (BATCH, SIZE)), "inputs": inputs(steps), "module": cell}


def fused_loop(kind: str, steps: int) -> dict[str, Any]:
    module = getattr(nn, kind)(SIZE, SIZE)

    def segment(state: Any, x: Tensor) -> tuple[Any, Tensor]:
        output, state = module(x, state)
        return state, output

    state = initial(kind, (1, BATCH, SIZE))
    return {"step": None, "segment": segment, "state": state, "inputs": inputs(steps), "module": module}


def initial(kind: str, shape: tuple[int, ...]) -> Any:
    return (torch.zeros(shape), torch.zeros(shape)) if kind == "LSTM" else torch.zeros(shape)


def inputs(steps: int) -> Tensor:
    return torch.randn(steps, BATCH, SIZE)


def train(loop: dict[str, Any], **how: Any) -> Callable[[], Any]:
    """One forward and backward with a dense gradient of every output and of the final state.

    `how` is the budget or the plan. The weights of the loss exist beforehand; the results are held to the
    end, as a caller would.
    """
    steps = loop["inputs"].shape[0]
    weights = torch.randn(steps, BATCH, SIZE)

    def run() -> Any:
        outputs, state = unroll(**loop, **how)
        loss = (outputs * weights).sum()
        for leaf in state if isinstance(state, tuple) else (state,):
            loss = loss + (leaf * leaf).sum()
        loss.backward()
        return outputs, state

    return run


LOOPS = {
    "RNN cell": (cell_loop, "RNN", 60),
    "GRU cell": (cell_loop, "GRU", 50),
    "LSTM cell": (cell_loop, "LSTM", 43),
    "fused RNN": (fused_loop, "RNN", 90),
    "fused GRU": (fused_loop, "GRU", 77),
    "fused LSTM": (fused_loop, "LSTM", 100),
}


@pytest.mark.parametrize("name", LOOPS)
def test_the_projection_bounds_the_measured_peak_within_a_thousandth(name: str) -> None:
    """From the least budget to an ample one: twenty-four combinations of cell, length and budget, remainders
    included. The refusal's minimum works, and the measured peak never exceeds the budget.
    """
    make, kind, steps = LOOPS[name]
    loop = make(kind, steps)
    with pytest.raises(BudgetTooSmall) as refusal:
        predict(**loop, budget=1000)
    least = refusal.value.minimum_budget_bytes
    full = predict(**loop, budget="1GiB").full_bptt_peak_bytes
    for fraction in FRACTIONS.values():
        budget = least + int(fraction * (full - least))
        prediction = predict(**loop, budget=budget)
        loop["module"].zero_grad(set_to_none=True)
        peak = measure(train(loop, budget=budget)).peak_bytes
        assert peak <= prediction.projected_peak_bytes <= budget
        assert prediction.projected_peak_bytes - peak <= 0.001 * peak, (name, fraction)


@pytest.mark.parametrize("segment_steps", [19, 25, 30, 38, 60])
def test_a_short_last_segment_is_bounded_as_tightly_when_everything_is_taped(segment_steps: int) -> None:
    """The first pass holds the most then, and no gradient of a parameter lives in it."""
    loop = fused_loop("GRU", 77)
    plan = tape_everything(77, segment_steps)
    projected = projected_peak_bytes(plan, probe(**loop, candidates=[segment_steps]))
    loop["module"].zero_grad(set_to_none=True)
    peak = measure(train(loop, plan=plan)).peak_bytes
    assert peak <= projected <= 1.001 * peak


def test_less_than_the_minimum_is_refused_by_one_byte() -> None:
    """The minimum is the least: one byte less is refused, with the same minimum."""
    loop = cell_loop("GRU", 40)
    with pytest.raises(BudgetTooSmall) as refusal:
        unroll(**loop, budget=1)
    least = refusal.value.minimum_budget_bytes
    unroll(**loop, budget=least)
    with pytest.raises(BudgetTooSmall) as again:
        unroll(**loop, budget=least - 1)
    assert again.value.minimum_budget_bytes == least


@pytest.mark.parametrize(
    "feature", ["dropout", "BatchNorm", "autocast", "input gradients", "sum", "detached state", "head"]
)
def test_the_projection_bounds_the_measured_peak_with_every_feature(feature: str) -> None:
    """Random streams, buffers, casts, gradients of inputs, reduced outputs: never above the projection."""
    cell = nn.GRUCell(SIZE, SIZE)
    parts = {"dropout": nn.Dropout(0.3), "BatchNorm": nn.BatchNorm1d(SIZE), "head": nn.Linear(SIZE, 8)}
    extra = parts.get(feature, nn.Identity())
    module = nn.ModuleList([cell, extra])

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = cell(x, state)
        output = extra(state)
        return state, output.square().sum() if feature in ("sum", "detached state") else output

    x = inputs(60).requires_grad_(feature == "input gradients")
    options: dict[str, Any] = {"reduce": "sum"} if feature in ("sum", "detached state") else {}
    if feature == "detached state":
        options["final_state"] = "detached"
    loop = {"step": step, "state": torch.zeros(BATCH, SIZE), "inputs": x, "module": module, **options}

    def run(budget: int) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=feature == "autocast"):
            outputs, state = unroll(**loop, budget=budget)
        (outputs * outputs.detach()).sum().backward()
        return outputs, state

    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=feature == "autocast"):
        with pytest.raises(BudgetTooSmall) as refusal:
            predict(**loop, budget=1)
        budget = int(1.15 * refusal.value.minimum_budget_bytes)
        projected = predict(**loop, budget=budget).projected_peak_bytes
    run(budget)
    module.zero_grad(set_to_none=True)
    x.grad = None
    peak = measure(lambda: run(budget)).peak_bytes
    assert peak <= projected <= budget


def test_probing_and_predicting_change_nothing() -> None:
    """Parameters, gradients, buffers, random stream and mode are as before."""
    module = nn.ModuleList([nn.GRUCell(SIZE, SIZE), nn.BatchNorm1d(SIZE), nn.Dropout(0.5)])
    cell, norm, dropout = module

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = cell(dropout(x), norm(state))
        return state, state

    x = inputs(30).requires_grad_()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    stream = torch.get_rng_state()
    predict(step, torch.zeros(BATCH, SIZE), x, budget="1GiB", module=module)
    assert torch.equal(torch.get_rng_state(), stream)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(parameter.grad is None for parameter in module.parameters())
    assert x.grad is None


def test_a_prediction_is_printed_for_people() -> None:
    """In five lines: the nodes of a plan may be thousands"""
    prediction = predict(**cell_loop("GRU", 60), budget="128KiB")
    lines = [line.split(maxsplit=2) for line in str(prediction).splitlines()]
    assert [line[0] for line in lines] == ["budget", "projected", "full", "plan", "seconds"]
    assert lines[0][1:] == ["128", "KiB"]
    steps = prediction.plan.segment_steps
    assert lines[3][1:] == [f"{prediction.plan.strategy},", f"segments of {steps} steps"]
