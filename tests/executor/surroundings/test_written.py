"""What steps leave in attributes and elsewhere is that of the forward pass, and no way for a gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from executor import predict, unroll
from executor.errors import GradientLost
from executor.plan import ExecutionPlan, checkpoint_every, tape_everything
from tests.executor.loops import SIZE, STEPS, LoopCase, plain, sequence, states

PLACES: dict[str, Callable[[Any], Tensor]] = {
    "an attribute": lambda module: module.penalty,
    "a dictionary": lambda module: module.last["penalty"],
    "a list": lambda module: module.all[-1],
}


class Spiking(nn.Module):
    """Keeps its last spikes, how often it was called, and a penalty."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(SIZE, SIZE).double()
        self.calls, self.rate = 0, 0.0
        self.spikes = torch.zeros(())
        self.penalty: Any = None
        self.last: dict[str, Tensor] = {}
        self.all: list[Any] = [None]

    def forward(self, state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = self.cell(x, state)
        self.calls += 1
        self.spikes = (state.detach() > 0).sum()
        self.rate = float(self.spikes) / state.numel()
        self.penalty = self.last["penalty"] = self.all[-1] = self.cell.weight_hh.square().sum()
        return state, state.square().sum()


@pytest.mark.parametrize("plan", [checkpoint_every(STEPS, 4, 1), tape_everything(STEPS, 1), None])
def test_attributes_are_afterwards_those_of_the_forward_pass(plan: ExecutionPlan | None) -> None:
    """They were those of whatever step ran last, the first of all as a rule; probing counted as well"""
    torch.manual_seed(0)
    module = Spiking()
    case = LoopCase(module, states(), sequence(), module)
    budget = None if plan is not None else 2**30
    found = []
    for run in (
        plain,
        lambda case: unroll(module, case.state, case.inputs, module=module, plan=plan, budget=budget),
    ):
        module.calls = 0
        outputs, _ = run(case)
        outputs.sum().backward()
        found.append((module.calls, int(module.spikes), module.rate))
    assert found[0] == found[1]


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("plan", [checkpoint_every(STEPS, 4, 1), tape_everything(STEPS, 1)])
def test_a_loss_is_not_to_depend_on_what_a_step_left_behind(where: str, plan: ExecutionPlan) -> None:
    """The gradient went to leaves that steps of a tape share with nobody, without a word"""
    module = Spiking()
    outputs, _ = unroll(module, states(), sequence(), module=module, plan=plan)
    loss = outputs.sum() + PLACES[where](module)
    with pytest.raises(GradientLost, match="return it as a part of the step's output"):
        loss.backward()
    if where == "a list":  # is not seen into: only backward() comes by what is lost
        return
    outputs, _ = unroll(module, states(), sequence(), module=module, plan=plan)
    loss = outputs.sum() + PLACES[where](module)
    with pytest.raises(GradientLost, match="penalty"):
        torch.autograd.grad(loss, [*module.parameters()])


def test_what_is_left_behind_may_be_looked_at() -> None:
    module = Spiking()
    outputs, _ = unroll(module, states(), sequence(), module=module, plan=checkpoint_every(STEPS, 4, 1))
    (outputs.sum() + module.penalty.detach()).backward()
    assert float(module.penalty.detach()) == pytest.approx(
        float(module.cell.weight_hh.detach().square().sum())
    )


def test_probing_leaves_no_attributes() -> None:
    module = Spiking()
    predict(module, states(), sequence(), module=module, budget=2**30)
    assert (module.calls, module.penalty, module.last) == (0, None, {})


class Caching:
    """Makes what it needs at its first step: an object that is no module, with a dictionary besides."""

    def __init__(self) -> None:
        self.grid: Tensor | None = None
        self.memory: dict[str, Any] = {"scale": 0.0}

    def step(self, state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.grid is None:
            self.grid = torch.linspace(0.1, 1, SIZE, dtype=torch.float64)
        if isinstance(self.memory["scale"], float):
            self.memory["scale"] = self.grid * 2
        state = torch.tanh(state * self.grid + self.memory["scale"] * x)
        return state, state.square().sum()


def test_a_cache_that_the_first_step_fills_is_empty_again_after_probing() -> None:
    """The attribute, and the entry, were gone: the first step that was not tried failed"""
    module = Caching()
    state, inputs = states().requires_grad_(), sequence()
    predict(module.step, state, inputs, budget=2**30)
    assert (module.grid, module.memory) == (None, {"scale": 0.0})
    outputs, _ = unroll(module.step, state, inputs, budget=2**30)
    expected, _ = plain(LoopCase(module.step, state, inputs))
    gradients = [torch.autograd.grad(each.sum(), state)[0] for each in (outputs, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


class Remembering(nn.Module):
    """Registers its state as a buffer, which steps replace by a tensor with a graph: spiking layers do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(SIZE, SIZE).double()
        self.register_buffer("membrane", torch.zeros(()))

    def forward(self, state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        self.membrane = state
        self.membrane = torch.tanh(self.membrane + self.linear(x))
        return self.membrane, self.membrane.square().sum()


@pytest.fixture
def all_warnings() -> Iterator[None]:
    """Torch's own come once in a process otherwise."""
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(before)


@pytest.mark.usefixtures("all_warnings")
def test_a_state_that_a_module_keeps_in_a_buffer_is_set_and_taken_at_each_step() -> None:
    """There was a warning that a tensor with a graph was made a number (warnings are errors here)"""
    module = Remembering()
    case = LoopCase(module, states(), sequence(), module)
    found = []
    for run in (plain, lambda case: unroll(module, case.state, case.inputs, module=module, budget=2**30)):
        module.membrane = torch.zeros(())
        outputs, _ = run(case)
        found.append(torch.autograd.grad(outputs.sum(), [*module.parameters()]))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)
