"""Gradients that come in row by row, of states that are channels_last, are within the budget too.

That of a state's mean, and of a layer that flattens it, is contiguous; a convolution's backward pass copies
all of its gradient then: a loop of one step was eight percent above its budget, and fifteen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from executor import BudgetTooSmall, measure, predict, unroll
from executor.execute import execute
from executor.loop import Loop
from executor.plan import ExecutionPlan
from executor.probe import probe_loop
from executor.probe_tapes import beside_host_memory
from executor.projection import projected_peak_bytes
from planner_service.chain import EMPTY, ArchiveNode, Policy

STEPS = 4
Handed = Callable[[Tensor], Tensor] | None


def of_its_sum(leaf: Tensor) -> Tensor:
    return torch.ones((), dtype=leaf.dtype).expand(leaf.shape)


def row_by_row(leaf: Tensor) -> Tensor:
    return torch.ones(leaf.shape, dtype=leaf.dtype)


@pytest.fixture
def conv_lstm() -> dict[str, Any]:
    """A loop whose states and inputs are channels_last."""
    convolution = nn.Conv2d(7, 16, 3, padding=1).double().to(memory_format=torch.channels_last)
    zeros = torch.zeros(2, 4, 12, 12, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    inputs = torch.randn(STEPS, 2, 12, 12, 3, dtype=torch.float64).movedim(-1, 2)

    def step(state: tuple[Tensor, Tensor], x: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        h, c = state
        i, f, o, g = convolution(torch.cat([x, h], 1)).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return (h, c), h.square().mean()

    return {"step": step, "state": (zeros, zeros), "inputs": inputs, "module": convolution, "reduce": "sum"}


def peak_of(run: Callable[[], tuple[Tensor, Any]], module: nn.Module, handed: Handed) -> int:
    """Measured bytes of forward and backward, with the gradients that are handed in of the last state."""

    def train() -> None:
        loss, last = run()
        given = [handed(leaf) for leaf in last if handed is not None]
        torch.autograd.backward([loss, *last[: len(given)]], [torch.ones_like(loss), *given])

    train()
    module.zero_grad(set_to_none=True)
    peak_bytes = measure(train, device="cpu").peak_bytes
    module.zero_grad(set_to_none=True)
    return peak_bytes


@pytest.mark.parametrize("handed", [None, of_its_sum, row_by_row, torch.ones_like])
def test_the_gradient_of_a_last_state_may_lie_otherwise(conv_lstm: dict[str, Any], handed: Handed) -> None:
    """In the least budget, and in that of full BPTT"""
    with pytest.raises(BudgetTooSmall) as refused:
        predict(**conv_lstm, budget=1)
    full = predict(**conv_lstm, budget="1GiB").full_bptt_peak_bytes
    for budget in (refused.value.minimum_budget_bytes, full):
        assert peak_of(lambda: unroll(**conv_lstm, budget=budget), conv_lstm["module"], handed) <= budget  # noqa: B023


@pytest.mark.parametrize("handed", [None, row_by_row])
def test_it_may_where_tapes_come_from_the_host(conv_lstm: dict[str, Any], handed: Handed) -> None:
    loop = Loop.of(**conv_lstm)
    report = beside_host_memory(loop, probe_loop(loop, candidates=[1]), 2**30, 2**28)
    plan = ExecutionPlan(STEPS, 1, Policy((ArchiveNode(STEPS, EMPTY),), 0), host_tapes=report.host_tapes(1))
    measured = peak_of(lambda: execute(loop, plan, report.needs), conv_lstm["module"], handed)
    assert measured <= projected_peak_bytes(plan, report)
