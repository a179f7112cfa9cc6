"""On a CUDA device: budgets are kept as the allocator counts, and gradients are those of full BPTT."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from executor import BudgetTooSmall, measure, predict, unroll
from executor.hard_cap import hard_cap, plannable_bytes
from executor.plan import tape_everything

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
    """The allocator is told to refuse more than the budget, its segments and their holes included."""
    loop = fused("LSTM")
    cap = predict(**loop, budget="8GiB").full_bptt_peak_bytes // 4
    unroll(**loop, budget=plannable_bytes(cap))[0].backward()
    loop["module"].zero_grad(set_to_none=True)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    with hard_cap(cap) as budget:
        unroll(**loop, budget=budget)[0].backward()
    assert torch.cuda.max_memory_reserved() - before <= cap
    assert loop["module"].weight_hh_l0.grad is not None


def test_the_cap_refuses_what_exceeds_it() -> None:
    """And afterwards the device is free again."""
    cap = 64 * 2**20
    with hard_cap(cap), pytest.raises(torch.OutOfMemoryError):
        torch.empty(cap + 2**22, dtype=torch.uint8, device="cuda")
    torch.empty(cap + 2**22, dtype=torch.uint8, device="cuda")


def tight_with_host(loop: dict[str, Any]) -> tuple[int, Any]:
    """A budget at which states go to the host, and what is predicted for it."""
    with pytest.raises(BudgetTooSmall) as refusal:
        predict(**loop, budget=1)
    budget = int(1.1 * refusal.value.minimum_budget_bytes)
    return budget, predict(**loop, budget=budget, host_budget="256MiB")


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_states_move_to_pinned_memory_and_both_budgets_are_kept(kind: str) -> None:
    """Measured on the device and on the host; the loss is the same, bit for bit, in every run."""
    loop = fused(kind)
    budget, prediction = tight_with_host(loop)
    assert prediction.plan.tiers
    losses: list[Tensor] = []

    def train() -> None:
        loop["module"].zero_grad(set_to_none=True)
        losses.append(unroll(**loop, budget=budget, host_budget="256MiB")[0])
        losses[-1].backward()

    train()
    loop["module"].zero_grad(set_to_none=True)
    measured = measure(train)
    assert measured.peak_bytes <= prediction.projected_peak_bytes <= budget
    assert 0 < measured.tier_peak_bytes["host"] <= 256 * 2**20
    assert torch.equal(losses[0], losses[1])


def test_gradients_after_a_journey_to_the_host_are_those_without() -> None:
    """Side streams and all: twenty runs of the tiered plan agree with the plan that tapes everything."""
    loop = fused("GRU")
    budget, prediction = tight_with_host(loop)
    parameters = list(loop["module"].parameters())
    everything = tape_everything(STEPS, prediction.plan.segment_steps)
    expected = torch.autograd.grad(unroll(**loop, plan=everything)[0], parameters)
    for _ in range(20):
        loss, _ = unroll(**loop, budget=budget, host_budget="256MiB")
        for ours, theirs in zip(torch.autograd.grad(loss, parameters), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))
