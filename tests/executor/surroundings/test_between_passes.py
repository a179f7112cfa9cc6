"""Between forward and backward: steps that run again see what the forward pass saw, or refuse."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from executor import ModifiedBetweenPasses, unroll
from executor.plan import ExecutionPlan, checkpoint_every, tape_everything
from tests.executor.loops import BATCH, SIZE, STEPS, LoopCase, plain, sequence, states

PLAN = checkpoint_every(STEPS, 1, 3)
WHOLE = tape_everything(STEPS, 1)


class Parts(nn.Module):
    """A cell that trains, with a dropout, a buffer and a frozen layer beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(SIZE, SIZE).double()
        self.dropout = nn.Dropout(0.5)
        self.frozen = nn.Linear(SIZE, SIZE).double().requires_grad_(False)
        self.register_buffer("mask", torch.ones(SIZE, dtype=torch.float64))

    def forward(self, state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = self.dropout(self.cell(self.frozen(x * self.mask), state))
        return state, state


class Settings:
    """An object with a rate that a step reads."""

    def __init__(self) -> None:
        self.rate, self.other, self._calls = 0.5, 1, 0


@pytest.fixture
def case() -> LoopCase:
    torch.manual_seed(2)
    module = Parts()
    return LoopCase(
        module, torch.zeros(BATCH, SIZE, dtype=torch.float64), sequence(requires_grad=False), module
    )


def weight_gradient(case: LoopCase, plan: ExecutionPlan | None, between: Callable[[], Any]) -> Tensor:
    """By plain autograd without a plan."""
    torch.manual_seed(1)
    outputs, _ = plain(case) if plan is None else unroll(case.step, case.state, case.inputs, plan=plan)
    between()
    found: Tensor = torch.autograd.grad(outputs.square().sum(), case.modules()[0].cell.weight_ih)[0]
    return found


def test_a_module_that_was_set_to_eval_trains_while_its_steps_run_again(case: LoopCase) -> None:
    """And is in eval mode again afterwards"""
    module = case.modules()[0]
    expected = weight_gradient(case, None, module.eval)
    module.train()
    found = weight_gradient(case, PLAN, module.eval)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert not any(part.training for part in module.modules())


CHANGES: dict[str, Callable[[Parts], Any]] = {
    "buffer mask": lambda module: module.mask.mul_(2),
    "frozen parameter weight": lambda module: torch.no_grad()(module.frozen.weight.mul_)(2),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_steps_read_and_was_changed_in_place_is_refused(name: str, case: LoopCase) -> None:
    """By name; where nothing runs again nothing is wrong"""
    module = case.modules()[0]
    expected = weight_gradient(case, None, lambda: None)
    found = weight_gradient(case, tape_everything(STEPS, 1), lambda: None)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    with pytest.raises(ModifiedBetweenPasses, match=name):
        weight_gradient(case, PLAN, lambda: CHANGES[name](module))


def test_what_was_replaced_is_put_back_while_steps_run_again(case: LoopCase) -> None:
    """Another buffer, another frozen layer: those of the forward pass are used, and the new ones kept"""
    module = case.modules()[0]
    mask, frozen = torch.zeros_like(module.mask), nn.Parameter(torch.zeros_like(module.frozen.weight), False)
    expected = weight_gradient(case, None, lambda: None)

    def replace() -> None:
        module.mask, module.frozen.weight = mask, frozen

    found = weight_gradient(case, PLAN, replace)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert module.mask is mask
    assert module.frozen.weight is frozen


def test_a_captured_tensor_that_was_changed_is_refused() -> None:
    captured = torch.randn(SIZE, dtype=torch.float64, requires_grad=True)
    state, x = torch.zeros(BATCH, SIZE, dtype=torch.float64), sequence(requires_grad=False)
    outputs, _ = unroll(
        lambda s, x_t: (torch.tanh(s + x_t * captured),) * 2, state, x, captured=captured, plan=PLAN
    )
    with torch.no_grad():
        captured.mul_(2)
    with pytest.raises(ModifiedBetweenPasses, match="captured"):
        outputs.sum().backward()


def test_parameters_that_were_frozen_in_the_forward_pass_get_no_gradient(case: LoopCase) -> None:
    """Although they need one when backward is called; as in plain autograd"""
    module = case.modules()[0]
    found = weight_gradient(case, PLAN, lambda: module.frozen.requires_grad_(True))
    assert module.frozen.weight.grad is None
    assert module.frozen.weight.requires_grad
    module.frozen.requires_grad_(False)
    torch.testing.assert_close(found, weight_gradient(case, None, lambda: None), rtol=1e-12, atol=1e-12)


def test_weights_that_functional_call_lent_are_those_of_both_passes() -> None:
    """The module's own get no gradient, and the inputs' is that of the lent ones"""

    class Unrolled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRUCell(SIZE, SIZE).double()

        def forward(self, x: Tensor, plan: ExecutionPlan | None) -> Tensor:
            def step(state: Tensor, x_t: Tensor) -> tuple[Tensor, Tensor]:
                state = self.cell(x_t, state)
                return state, state

            case = LoopCase(step, torch.zeros(BATCH, SIZE, dtype=torch.float64), x, self.cell)
            run = plain(case) if plan is None else unroll(step, case.state, x, module=self.cell, plan=plan)
            outputs: Tensor = run[0]
            return outputs

    module, x = Unrolled(), sequence()
    lent = {name: 0.5 * each.detach() for name, each in module.named_parameters()}
    gradients = []
    for plan in (None, PLAN):
        outputs = torch.func.functional_call(module, lent, (x, plan))
        gradients.append(torch.autograd.grad(outputs.square().sum(), x)[0])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-12, atol=1e-12)
    assert all(each.grad is None for each in module.parameters())


def test_a_buffer_that_was_deleted_stays_deleted(case: LoopCase) -> None:
    """It is there while steps run again, and gone afterwards"""
    module = case.modules()[0]
    expected = weight_gradient(case, None, lambda: None)

    def delete() -> None:
        del module.mask

    torch.testing.assert_close(weight_gradient(case, PLAN, delete), expected, rtol=1e-12, atol=1e-12)
    assert "mask" not in module._buffers


def annealed(case: LoopCase, what: str, plan: ExecutionPlan) -> Callable[[], Tensor]:
    """The gradient after a number was changed that the step reads as `what`."""
    settings, module = Settings(), case.modules()[0]
    options, rates, scaling = {"rate": 0.5, "calls": 0}, [0.5], {"rate of an adapter": 0.5}
    active = next(iter(scaling))
    module.rate, module._rate, module._whole, module.last_loss = 0.5, 0.5, 2, 0.7
    counted = 0

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal counted
        counted += 1  # the step may count its calls
        settings._calls += 1
        found = {"object": settings.rate, "dict": options["rate"], "module": module.rate, "none": 1.0}
        found |= {"private": module._rate, "whole": 1 / module._whole, "adapter": scaling[active]}
        return module(state * found[what], x)

    outputs, _ = unroll(step, case.state, case.inputs, module=module, plan=plan)
    if what == "object":
        settings.rate = 0.25
    elif what == "dict":
        options["rate"] = 0.25
    elif what == "module":
        module.rate = 0.25
    elif what == "private":
        module._rate = 0.25
    elif what == "whole":
        module._whole = 4
    elif what == "adapter":
        scaling[active] = 0.25
    settings.other, options["calls"], rates[0], module.last_loss = 2, 1, 0.1, 0.3  # nobody reads them
    return lambda: torch.autograd.grad(outputs.square().sum(), module.cell.weight_ih)[0]


@pytest.mark.parametrize("what", ["object", "dict", "module", "private", "whole", "adapter", "none"])
def test_a_number_that_was_changed_is_put_back_while_steps_run_again(case: LoopCase, what: str) -> None:
    """They read the new one; by the time of backward a schedule may be a step further"""
    found = []
    for plan in (WHOLE, PLAN):
        torch.manual_seed(1)
        found.append(annealed(case, what, plan)())
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-12)
    module = case.modules()[0]
    assert (module.rate, module._rate) == (
        0.25 if what == "module" else 0.5,
        0.25 if what == "private" else 0.5,
    )


def test_the_rate_of_a_dropout_is_watched(case: LoopCase) -> None:
    """Torch's lines read it"""
    module = case.modules()[0]
    outputs, _ = unroll(case.step, case.state, case.inputs, module=module, plan=PLAN)
    module.dropout.p = 0.1
    with pytest.raises(ModifiedBetweenPasses, match=r"dropout.p was 0.5 in the forward pass and is 0.1 now"):
        outputs.sum().backward()


def test_the_weights_of_a_teacher_are_watched(case: LoopCase) -> None:
    """It trains, is not declared, and is asked without gradients"""
    module, teacher = case.modules()[0], nn.Linear(SIZE, SIZE).double()

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            target = teacher(x)
        state, _ = module(state, x)
        return state, state * target

    outputs, _ = unroll(step, case.state, case.inputs, module=module, plan=PLAN)
    with torch.no_grad():
        teacher.weight.mul_(0.9)
    with pytest.raises(ModifiedBetweenPasses, match="parameter weight of a module that the step uses"):
        outputs.sum().backward()


def test_draws_in_a_stream_that_is_put_back_by_hand_are_replayed(case: LoopCase) -> None:
    """Whatever the caller draws between the passes"""
    cell = case.modules()[0].cell

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        before = torch.get_rng_state()
        noise = torch.rand_like(state)
        torch.set_rng_state(before)
        state = cell(x, state * noise)
        return state, state

    found = []
    for plan in (None, PLAN):
        torch.manual_seed(1)
        made = LoopCase(step, case.state, case.inputs, cell)
        outputs, _ = (
            plain(made) if plan is None else unroll(step, case.state, case.inputs, module=cell, plan=plan)
        )
        torch.rand(3)
        found.append(torch.autograd.grad(outputs.square().sum(), cell.weight_ih)[0])
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-12)


def noisy(case: LoopCase) -> tuple[Settings, list[Tensor], Callable[[], Tensor]]:
    """An object with constants that a step reads, and with what it keeps; a list; the gradient afterwards."""
    settings: Any = Settings()
    settings.noise, settings.last, settings.total = torch.ones(SIZE), None, torch.zeros(())
    settings.table = np.ones(SIZE)
    kept: list[Tensor] = [torch.ones(SIZE)]
    module = case.modules()[0]
    torch.manual_seed(1)

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state, output = module(state + settings.noise + kept[-1] * torch.from_numpy(settings.table), x)
        settings.last = output.detach()
        settings.total += settings.last.sum()
        return state, output

    outputs, _ = unroll(step, case.state, lambda t: case.inputs[t], length=STEPS, module=module, plan=PLAN)
    return settings, kept, lambda: torch.autograd.grad(outputs.square().sum(), module.cell.weight_ih)[0]


@pytest.mark.parametrize("what", ["in place", "in an array", "of the inputs"])
def test_tensors_that_a_step_reads_are_watched(case: LoopCase, what: str) -> None:
    """Steps that ran again read the new ones, without a word"""
    settings: Any
    settings, _, gradient = noisy(case)
    if what == "in place":
        settings.noise.mul_(2)
    elif what == "in an array":
        settings.table *= 2
    else:
        case.inputs.mul_(2)
    with pytest.raises(ModifiedBetweenPasses, match=r"changed .*between forward and backward"):
        gradient()


def test_what_a_step_keeps_may_change_and_attributes_are_put_back(case: LoopCase) -> None:
    """Steps that run again read what the forward pass read; attributes may be of the next window already"""
    expected = noisy(case)[2]()
    settings: Any
    settings, kept, gradient = noisy(case)
    settings.last = settings.last.mean(0)
    settings.total.zero_()
    settings.noise = new = torch.zeros(SIZE)
    kept[0] = new
    kept.append(new)
    torch.testing.assert_close(gradient(), expected, rtol=1e-12, atol=1e-12)
    assert settings.noise is new
    assert [each is new for each in kept] == [True, True]


class Counting(nn.Module):
    """Counts its steps, and reads a rate."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.steps = nn.GRUCell(SIZE, SIZE).double(), 0

    def forward(self, state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        self.steps += 1
        state = self.cell(x, state)
        return state, state


def test_steps_may_be_counted_over_several_loops_before_one_backward_pass() -> None:
    """The second loop moved the count, and the first was refused for it"""
    module, inputs = Counting(), sequence(requires_grad=False)
    state = torch.zeros(BATCH, SIZE, dtype=torch.float64)
    loops = [unroll(module, state, inputs, plan=PLAN)[0].square().sum() for _ in range(2)]
    one, other = (torch.autograd.grad(loop, list(module.parameters()))[0] for loop in loops)
    assert torch.equal(one, other)


@pytest.mark.parametrize("what", ["a hook that goes", "a hook that comes", "another part", "another forward"])
def test_steps_run_again_with_the_parts_and_hooks_of_the_forward_pass(what: str) -> None:
    """A hook that was removed after the forward pass was missing where steps ran again, without a word"""
    torch.manual_seed(0)
    parts = nn.ModuleDict({"cell": nn.GRUCell(SIZE, SIZE), "head": nn.Linear(SIZE, SIZE)}).double()
    head, x, zeros = parts["head"], sequence(), states()

    def step(h: Tensor, x_t: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(parts["head"](parts["cell"](x_t, h)))
        return h, h.square().mean()

    def half(*given: Any) -> Tensor:
        return 0.5 * nn.functional.linear(given[0], head.weight)

    def found(plan: ExecutionPlan) -> list[Tensor]:
        parts["head"] = head
        hook = (
            head.register_forward_hook(lambda *given: 0.5 * given[2]) if what == "a hook that goes" else None
        )
        loss, _ = unroll(step, zeros, x, module=parts, reduce="sum", plan=plan)
        if hook is not None:
            hook.remove()
        elif what == "a hook that comes":
            hook = head.register_forward_hook(lambda *given: 0.5 * given[2])
        elif what == "another part":
            parts["head"] = nn.Linear(SIZE, SIZE).double()
        else:
            head.forward = half
        try:
            return list(torch.autograd.grad(loss, [head.weight, zeros]))
        finally:
            vars(head).pop("forward", None)
            if hook is not None:
                hook.remove()

    torch.testing.assert_close(found(checkpoint_every(STEPS, 2, 2)), found(tape_everything(STEPS, 2)))


class Slots:
    """An object without a dictionary."""

    __slots__ = ("layer",)


layer_here: Any = None
"""A global variable that a step below names."""


def layer_by_layer(where: str, layers: list[nn.Module], x: Tensor, plan: ExecutionPlan | None) -> Tensor:
    """A stack of layers, one loop after the other, by one step that names `where` the layer is."""
    global layer_here
    holder: Any = {"slot": Slots(), "class": type("Holder", (), {"__module__": __name__})}.get(
        where, SimpleNamespace()
    )
    for number, layer in enumerate(layers):
        layer_here = holder.layer = layer
        act = torch.tanh if number else torch.sigmoid
        scale = torch.full((SIZE,), 1.0 + number, dtype=torch.float64)
        weight = torch.exp(scale * layer.weight_hh[0, 0])

        def variable(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            state = act(layer(x * scale + weight, state)) / (1 + number)  # noqa: B023 - that is the point
            return state, state

        def named(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            state = layer_here(x, state)  # noqa: B023 - as above
            return state, state

        def attribute(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            state = holder.layer(x, state)
            return state, state

        step = {"variable": variable, "global": named}.get(where, attribute)
        captured = [weight] if where == "variable" else []
        zeros = torch.zeros(BATCH, SIZE, dtype=torch.float64)
        made = LoopCase(step, zeros, x, layer, captured)
        x, _ = (
            plain(made)
            if plan is None
            else unroll(step, zeros, x, module=layer, captured=captured, plan=plan)
        )
    return x


@pytest.mark.parametrize("where", ["variable", "global", "attribute", "slot", "class"])
def test_steps_that_are_defined_in_a_loop_run_again_with_its_variables_of_that_time(where: str) -> None:
    """By the time of backward they name the last layer: all gradients were those of that one, or nothing"""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.GRUCell(SIZE, SIZE).double() for _ in range(3)]
    parameters = [each for layer in layers for each in layer.parameters()]
    x = sequence()
    found = []
    for plan in (None, PLAN):
        outputs = layer_by_layer(where, layers, x, plan)
        found.append(torch.autograd.grad(outputs.square().sum(), [x, *parameters]))
        assert layer_here is layers[-1]
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-12)


def test_what_a_hook_writes_in_the_backward_pass_stays(case: LoopCase) -> None:
    """With several loops in one backward pass the attribute is put back for each, and written after that"""
    module = case.modules()[0]
    module.norm = 0.0
    module.cell.register_full_backward_hook(
        lambda _cell, _given, gradients: setattr(module, "norm", float(gradients[0].norm()))
    )
    norms = []
    for plan in (WHOLE, PLAN):
        torch.manual_seed(1)
        first, second = (unroll(module, states(), case.inputs, plan=plan)[0].square().sum() for _ in range(2))
        (2 * first + second).backward()
        norms.append(module.norm)
        module.norm = 0.0
    assert norms[0] == pytest.approx(norms[1], rel=1e-12)
    assert norms[0] > 0
