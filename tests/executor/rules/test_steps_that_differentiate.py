"""Steps that differentiate inside: forces that are gradients of an energy, and functions whose backward pass
runs a module again.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from executor import BudgetTooSmall, CaptureError, measure, unroll
from executor.plan import checkpoint_every, tape_everything
from executor.rules import captures, second_run
from executor.rules.second_run import differentiates_a_second_run
from tests.executor.loops import STEPS, LoopCase, gradients, plain, states

LONG = 24


def _least_budget(case: LoopCase, **options: Any) -> int:
    with pytest.raises(BudgetTooSmall) as refusal:
        unroll(case.step, case.state, case.inputs, module=case.module, budget=1, **options)
    return refusal.value.minimum_budget_bytes


def test_states_of_a_step_that_enables_gradients_hold_no_graph() -> None:
    """A Hamiltonian step: each stored state held the graphs of all steps before it, 45 times the budget"""
    torch.manual_seed(0)
    energy = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1)).double()

    def step(state: Any, _: Tensor) -> tuple[Any, Tensor]:
        q = state["q"]
        with torch.enable_grad():
            q = q if q.requires_grad else q.detach().requires_grad_()
            (force,) = torch.autograd.grad(energy(q).sum(), q, create_graph=True)
            q = q - 0.1 * force
        return {"q": q}, q.square().mean()

    q = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    case = LoopCase(step, {"q": q}, torch.zeros(LONG, 1), energy)
    budget = _least_budget(case, reduce="sum")

    def run(budget: int) -> list[Tensor | None]:
        loss, _ = unroll(step, case.state, case.inputs, module=energy, reduce="sum", budget=budget)
        return list(torch.autograd.grad(loss, case.leaves(), allow_unused=True))

    run(budget)
    measured = measure(lambda: run(budget))
    assert measured.peak_bytes <= budget
    for one, other in zip(measured.result, run(2**30), strict=True):
        assert (one is None) == (other is None)
        assert one is None or other is None or torch.allclose(one, other, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        _, state = unroll(step, case.state, case.inputs, module=energy, budget=1)
    assert not state["q"].requires_grad


@pytest.mark.parametrize("is_declared", [True, False])
def test_gradients_of_gradients_may_have_numbers_of_another_thread(
    is_declared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a device's backward pass has one: they are no captures, and captures are still found"""
    for module in (captures, second_run):
        monkeypatch.setattr(module, "are_numbered_by_threads", lambda _tensors: True)
    energy = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1, bias=False)).double()
    scale = torch.ones(4, dtype=torch.float64, requires_grad=True)
    earlier = 1 * scale
    captured = (earlier,) if is_declared else ()

    def force(q: Tensor) -> Tensor:
        with torch.enable_grad():
            q = q if q.requires_grad else q.detach().requires_grad_()
            return torch.autograd.grad(energy(q).sum(), q, create_graph=True)[0]

    def step(q: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        with ThreadPoolExecutor(1) as thread:
            found = thread.submit(force, q).result()
        q = q - 0.1 * earlier * found
        return q, q.square().mean()

    q = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    case = LoopCase(step, q, torch.zeros(STEPS, 1), energy, captured)
    run = partial(unroll, step, q, case.inputs, module=energy, captured=captured, budget="1MiB")
    if not is_declared:
        with pytest.raises(CaptureError, match="earlier"):
            run()
        return
    for one, other in zip(gradients(case, lambda: plain(case))[2], gradients(case, run)[2], strict=True):
        assert one is not None
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)


class _Adjoint(torch.autograd.Function):
    """Euler's method with the adjoint's backward pass: what the second run does not use has no gradient."""

    @staticmethod
    def forward(ctx: Any, field: nn.Module, y: Tensor, *parameters: Tensor) -> Tensor:
        ctx.field = field
        ctx.save_for_backward(y, *parameters)
        after: Tensor = y + 0.1 * field(y)
        return after

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        y, *parameters = ctx.saved_tensors
        return (None, *_again(ctx.field, y, parameters, gradient))


def _again(field: nn.Module, y: Tensor, parameters: list[Tensor], gradient: Tensor) -> list[Tensor]:
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        found: Any = torch.autograd.grad(y + 0.1 * field(y), [y, *parameters], gradient, allow_unused=True)
    return [
        torch.zeros_like(of) if each is None else each
        for of, each in zip([y, *parameters], found, strict=True)
    ]


def _adjoint_case() -> LoopCase:
    field = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6)).double()

    def step(state: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        state = _Adjoint.apply(field, state, *field.parameters())  # type: ignore[no-untyped-call]
        return state, state

    return LoopCase(step, states(), torch.zeros(STEPS, 1, dtype=torch.float64), field)


def test_functions_that_run_a_module_again_find_the_leaves_that_they_saved() -> None:
    """In segments of several steps they found others: every gradient of the module was zero"""
    case = _adjoint_case()
    several: dict[str, Any] = {"plan": tape_everything(STEPS, 4)}
    _, _, expected = gradients(case, lambda: plain(case))
    for how in ({"budget": _least_budget(case)}, several):
        run = partial(unroll, case.step, case.state, case.inputs, module=case.module, **how)
        _, _, found = gradients(case, run)
        for one, other in zip(found, expected, strict=True):
            assert one is not None
            assert other is not None
            assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own, at its first tangent
def test_steps_may_use_forward_mode_themselves() -> None:
    """Tangents were off inside: the derivative of a state along itself was None"""
    torch.manual_seed(0)
    cell = nn.GRUCell(3, 4).double()

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = cell(x, state)
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(state, state)  # type: ignore[no-untyped-call]
            state = forward_ad.unpack_dual(dual.sin()).tangent  # type: ignore[no-untyped-call]
        return state, state

    x = torch.randn(STEPS, 2, 3, dtype=torch.float64)
    case = LoopCase(step, x.new_zeros(2, 4), x, cell)
    plan = checkpoint_every(STEPS, 2, 1)
    found = gradients(case, lambda: unroll(step, case.state, case.inputs, module=cell, plan=plan))
    torch.testing.assert_close(found, gradients(case, lambda: plain(case)), rtol=1e-12, atol=1e-12)


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        inner: Tensor = gradient / (1 + x.abs()) ** 2
        return inner


def test_only_functions_that_enable_gradients_count() -> None:
    """Others, such as the surrogate gradients of spikes, keep leaves of their own for every step"""
    x = torch.randn(3, requires_grad=True)
    field = nn.Linear(3, 3)
    spike = _Spike.apply(x * 2)  # type: ignore[no-untyped-call]
    adjoint = _Adjoint.apply(field, x, *field.parameters())  # type: ignore[no-untyped-call]
    assert not differentiates_a_second_run([spike * 2, None], 0)
    assert differentiates_a_second_run([None, adjoint.sum()], 0)
