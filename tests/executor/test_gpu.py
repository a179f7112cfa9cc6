"""On a CUDA device: budgets are kept as the allocator counts, and gradients are those of full BPTT."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from executor import BudgetTooSmall, measure, predict, unroll
from executor.hard_cap import hard_cap

pytestmark = pytest.mark.gpu

STEPS, BATCH, SIZE = 400, 32, 256


def fused(kind: str) -> dict[str, Any]:
    module = getattr(nn, kind)(SIZE, SIZE).cuda()

    def segment(state: Any, x: Tensor) -> tuple[Any, Tensor]:
        output, state = module(x, state)
        return state, output.square().mean()

    zero = torch.zeros(1, BATCH, SIZE, device="cuda")
    state = (zero, zero.clone()) if kind == "LSTM" else zero
    inputs = torch.randn(STEPS, BATCH, SIZE, device="cuda")
    return {
        "step": None,
        "segment": segment,
        "state": state,
        "inputs": inputs,
        "module": module,
        "reduce": "sum",
        "final_state": "detached",
    }


@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_the_allocators_peak_stays_within_the_budget(kind: str, fraction: float) -> None:
    """Rounding of blocks included; from the least budget up."""
    loop = fused(kind)
    with pytest.raises(BudgetTooSmall) as refusal:
        predict(**loop, budget=1)
    least = refusal.value.minimum_budget_bytes
    full = predict(**loop, budget="8GiB").full_bptt_peak_bytes
    budget = least + int(fraction * (full - least))
    projected = predict(**loop, budget=budget).projected_peak_bytes

    def train() -> None:
        loop["module"].zero_grad(set_to_none=True)
        unroll(**loop, budget=budget)[0].backward()

    train()
    loop["module"].zero_grad(set_to_none=True)
    peak = measure(train).peak_bytes
    assert peak <= projected <= budget


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_gradients_are_those_of_full_bptt(kind: str) -> None:
    """To rounding: cuDNN sums a segment at a time."""
    loop = fused(kind)
    parameters = list(loop["module"].parameters())
    budget = predict(**loop, budget="8GiB").full_bptt_peak_bytes // 8
    found = torch.autograd.grad(unroll(**loop, budget=budget)[0], parameters)
    state, total = loop["state"], torch.zeros((), device="cuda")
    for x in loop["inputs"].split(50):
        state, loss = loop["segment"](state, x)
        total = total + loss
    for ours, theirs in zip(found, torch.autograd.grad(total, parameters), strict=True):
        assert theirs.abs().max() > 0
        torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=1e-3 * float(theirs.abs().max()))


def test_training_finishes_under_a_hard_cap_of_the_budget() -> None:
    """The allocator is told to refuse more; a tenth is left for its fragments."""
    loop = fused("LSTM")
    budget = predict(**loop, budget="8GiB").full_bptt_peak_bytes // 8
    unroll(**loop, budget=budget)[0].backward()
    loop["module"].zero_grad(set_to_none=True)
    with hard_cap(int(1.1 * budget) + 64 * 2**20):
        unroll(**loop, budget=budget)[0].backward()
    assert loop["module"].weight_hh_l0.grad is not None
