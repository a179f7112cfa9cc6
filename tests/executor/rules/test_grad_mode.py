"""Steps that go by whether gradients are enabled, as they are in a plain training loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from executor import BudgetTooSmall, CaptureError, UnsupportedBackward, measure, unroll
from executor.plan import checkpoint_every
from tests.executor.loops import BATCH, SIZE, STEPS, LoopCase, gradients, plain, sequence, states


class Codebook(nn.Module):
    """Vectors that move towards what they stand for, where a model trains with gradients enabled."""

    vectors: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(SIZE, SIZE).double()
        self.register_buffer("vectors", torch.randn(4, SIZE, dtype=torch.float64))

    def forward(self, h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.cell(x, h)
        nearest = torch.cdist(h, self.vectors).argmin(1)
        chosen = self.vectors[nearest]
        if self.training and torch.is_grad_enabled():
            with torch.no_grad():
                self.vectors[nearest] += 0.5 * (h - chosen)
        return h + (chosen - h).detach(), (h - chosen.detach()).square().mean()


def by_asking() -> LoopCase:
    module = Codebook()
    return LoopCase(module.forward, states(), sequence(), module)


def by_state() -> LoopCase:
    cell = nn.GRUCell(SIZE, SIZE).double()

    def step(h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        h = cell(x, h)
        return (1.1 * h if h.requires_grad else h), h.mean()

    return LoopCase(step, states(requires_grad=False), sequence(), cell)


def by_descent() -> LoopCase:
    energy = nn.Sequential(nn.Linear(SIZE, 8), nn.Tanh(), nn.Linear(8, 1)).double()

    def step(x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        x = x if x.requires_grad else x.requires_grad_()
        (force,) = torch.autograd.grad(energy(x).sum(), x, create_graph=True)
        x = x - 0.1 * force + 0.01 * noise
        return x, x.square().mean()

    return LoopCase(step, states(requires_grad=False), sequence(requires_grad=False), energy)


def by_inner_optimiser() -> LoopCase:
    net, rates = nn.Linear(SIZE, 1).double(), nn.ParameterList([torch.tensor(0.1, dtype=torch.float64)] * 2)

    def step(weights: dict[str, Tensor], x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        loss = (functional_call(net, weights, x) - x.sum(1, keepdim=True)).square().mean()
        found = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        pairs = zip(weights.items(), found, rates, strict=True)
        return {name: weight - rate * each for (name, weight), each, rate in pairs}, loss

    return LoopCase(step, dict(net.named_parameters()), sequence(), rates)


def by_penalty() -> LoopCase:
    cell, critic = (
        nn.GRUCell(SIZE, SIZE).double(),
        nn.Sequential(nn.Linear(SIZE, 4), nn.Tanh(), nn.Linear(4, 1)),
    )

    def step(h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        h = cell(x, h)
        point = h.detach().requires_grad_()
        (slope,) = torch.autograd.grad(critic(point).sum(), point, create_graph=True)
        return h, critic(h).mean() + (slope.norm(dim=1) - 1).square().mean()

    return LoopCase(step, states(), sequence(), (cell, critic.double()))


CASES = [by_asking, by_state, by_descent, by_inner_optimiser, by_penalty]


@pytest.mark.parametrize("make", CASES)
@pytest.mark.parametrize("ratio", [1, 1.3])
def test_steps_see_gradients_enabled_as_in_a_plain_loop(make: Callable[[], LoopCase], ratio: float) -> None:
    """Stages that are advanced without gradients did something else, silently, or nothing"""
    torch.manual_seed(0)
    expected = plain_run(make())
    with pytest.raises(BudgetTooSmall) as refusal:
        unrolled(make(), 1)
    budget = int(ratio * refusal.value.minimum_budget_bytes)
    torch.manual_seed(0)
    case = make()
    _same(expected, gradients(case, lambda: unrolled(case, budget)), case)
    assert measure(lambda: gradients(case, lambda: unrolled(case, budget))).peak_bytes <= budget + 4096


def plain_run(case: LoopCase) -> tuple[Any, list[Tensor]]:
    found = gradients(case, lambda: plain(case))
    return found, [buffer.clone() for module in case.modules() for buffer in module.buffers()]


def unrolled(case: LoopCase, budget: int) -> tuple[Any, Any]:
    return unroll(case.step, case.state, case.inputs, module=case.module, budget=budget)


def _same(expected: tuple[Any, list[Tensor]], found: Any, case: LoopCase) -> None:
    buffers = [buffer for module in case.modules() for buffer in module.buffers()]
    torch.testing.assert_close(found, expected[0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(buffers, expected[1], rtol=1e-10, atol=1e-10)


def test_where_nothing_is_to_be_trained_gradients_stay_as_the_caller_has_them() -> None:
    """A sampler that follows the forces of a frozen energy; evaluation of a codebook"""
    torch.manual_seed(0)
    case = by_descent()
    for module in case.modules():
        module.requires_grad_(False)
    given = case.state.clone()
    found = unroll(case.step, given, case.inputs, module=case.module, budget=1)
    torch.testing.assert_close(found, plain(case), rtol=1e-12, atol=1e-12)
    assert not found[1].requires_grad
    book = Codebook()
    before = book.vectors.clone()
    with torch.no_grad():
        unroll(book.forward, states(), sequence(), module=book, budget=1)
    assert torch.equal(before, book.vectors)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
@pytest.mark.parametrize("held_by", ["a list", "a default", "a scripted module", "an attribute"])
def test_leaves_that_a_step_did_not_make_are_still_found(held_by: str) -> None:
    case = by_penalty()
    leaf, x = torch.ones(SIZE, dtype=torch.float64, requires_grad=True), case.inputs
    scripted: Any = torch.jit.script(nn.Linear(SIZE, SIZE).double())
    kept = [leaf]

    def step(h: Tensor, x: Tensor, default: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if held_by == "an attribute":
            step.point = h.detach().requires_grad_()  # type: ignore[attr-defined]
            h = h + step.point  # type: ignore[attr-defined]
        scale: Any = {"a list": lambda: kept[0], "a default": lambda: default}.get(held_by, lambda: 1.0)()
        h = scripted(h) if held_by == "a scripted module" else h * scale
        h, loss = case.step(h, x)
        return h, loss

    step.__defaults__ = (leaf if held_by == "a default" else None,)
    with pytest.raises(CaptureError):
        unroll(step, case.state, x, module=case.module, budget=2**20)


def test_a_step_that_calls_backward_is_refused() -> None:
    """It adds to the gradients of parameters, once more whenever it runs again"""
    slow = nn.Linear(SIZE, SIZE).double()

    def step(fast: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        inner = fast.detach().requires_grad_()
        (slow(x) @ inner - x).square().mean().backward()
        assert inner.grad is not None
        fast = fast - 0.1 * inner.grad
        return fast, (slow(x) @ fast - x).square().mean()

    x = torch.randn(STEPS, BATCH, SIZE, dtype=torch.float64)
    with pytest.raises(UnsupportedBackward, match=r"torch\.autograd\.grad"):
        unroll(step, torch.eye(SIZE, dtype=torch.float64), x, module=slow, reduce="sum", budget=2**20)
    assert all(parameter.grad is None for parameter in slow.parameters())


def test_a_step_may_ask_at_some_steps_only() -> None:
    """At none of those that are looked at before the loop is trusted"""
    cell = nn.GRUCell(SIZE, SIZE).double()

    def step(state: tuple[Tensor, int], x: Tensor) -> tuple[tuple[Tensor, int], Tensor]:
        h, t = cell(x, state[0]), state[1]
        if t % 4 == 3 and torch.is_grad_enabled():
            h = 1.1 * h
        return (h, t + 1), h.mean()

    case = LoopCase(step, (states(), 0), sequence(), cell)
    plan = checkpoint_every(STEPS, 2, 2)
    found = gradients(case, lambda: unroll(step, case.state, case.inputs, module=cell, plan=plan))
    torch.testing.assert_close(found, gradients(case, lambda: plain(case)), rtol=1e-10, atol=1e-10)
