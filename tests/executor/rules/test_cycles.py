"""Tensors that steps leave in reference cycles are freed before the next stage."""

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from executor import BudgetTooSmall, measure, predict, unroll
from executor.rules.cycles import collected, leaves_cycles

STEPS, BATCH, SIZE = 24, 100, 8


def in_a_cycle(tensor: Tensor) -> Tensor:
    """The tensor; a function that calls itself, and sees it in a list, is left behind."""
    levels = [tensor]

    def descend(level: int) -> Tensor:
        if not level:
            return levels[-1]
        levels.append(levels[-1] * 2)
        return descend(level - 1)

    return descend(3)


class Noting(torch.autograd.Function):
    """Notes its output, which leads back to it, instead of saving it."""

    @staticmethod
    def forward(ctx: Any, given: Tensor) -> Tensor:
        ctx.out = torch.sigmoid(given)
        return ctx.out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * ctx.out.detach() * (1 - ctx.out.detach())


def test_cycles_are_told_from_what_is_freed_at_once() -> None:
    assert leaves_cycles(lambda: in_a_cycle(torch.ones(3)))[1]
    assert not leaves_cycles(lambda: torch.ones(3) * 2)[1]


@pytest.mark.parametrize("is_enabled", [True, False])
def test_collecting_is_enabled_afterwards_as_before(is_enabled: bool) -> None:
    (gc.enable if is_enabled else gc.disable)()
    try:
        with collected():
            assert not gc.isenabled()
        assert gc.isenabled() is is_enabled
    finally:
        gc.enable()


@pytest.mark.parametrize("function", [in_a_cycle, Noting.apply])
def test_a_budget_holds_for_steps_that_leave_tensors_in_cycles(function: Callable[[Tensor], Tensor]) -> None:
    """Python frees these when there are many objects, whatever they hold: nine budgets, or a failed plan"""
    linear = nn.Linear(SIZE, SIZE)
    inputs, zeros = torch.randn(STEPS, SIZE), torch.zeros(BATCH, SIZE)

    def step(h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(linear(function(h)) + x)
        return h, h.square().mean()

    loop = {"module": linear, "reduce": "sum"}
    with pytest.raises(BudgetTooSmall) as refused:
        predict(step, zeros, inputs, budget=1, **loop)
    budget = refused.value.minimum_budget_bytes

    def train() -> None:
        unroll(step, zeros, inputs, budget=budget, **loop)[0].backward()

    train()
    gradients = [parameter.grad for parameter in linear.parameters()]
    h, expected = zeros, torch.zeros(())
    for x in inputs:
        h, loss = step(h, x)
        expected = expected + loss
    torch.testing.assert_close(gradients, [*torch.autograd.grad(expected, [*linear.parameters()])])
    del h, expected, loss
    linear.zero_grad(set_to_none=True)
    assert measure(train, device="cpu").peak_bytes <= budget
