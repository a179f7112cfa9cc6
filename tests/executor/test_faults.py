"""What a step may not do is refused by name, and afterwards everything is as before the call."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from executor import (
    CaptureError,
    DoubleBackward,
    ModifiedBetweenPasses,
    PlanMismatch,
    ReplayError,
    StateChanged,
    StateMutated,
    UnsupportedOutput,
    predict,
    unroll,
)
from executor.plan import checkpoint_every, tape_everything
from executor.surroundings.watch import Watch
from tests.executor.loops import SIZE, STEPS, cell_case, gradients, plain, sequence, states

PLAN = checkpoint_every(STEPS, 1, 3)


def run(step: Any, state: Any = None, **options: Any) -> Any:
    inputs = options.pop("inputs", None)
    inputs = sequence() if inputs is None else inputs
    return unroll(step, states() if state is None else state, inputs, plan=PLAN, **options)


def test_a_step_that_changes_the_states_shape_is_refused() -> None:
    """The message names the leaf, what came and what is expected."""
    with pytest.raises(StateChanged, match=r"leaf 0 .*\(3, 7\).*\(3, 6\)"):
        run(lambda state, x: (torch.cat([state, state[:, :1]], 1), x))


def test_a_step_that_changes_the_states_dtype_is_refused() -> None:
    with pytest.raises(StateChanged, match="float32"):
        run(lambda state, x: ((state + x).float(), x))


def test_a_step_that_changes_the_states_structure_is_refused() -> None:
    with pytest.raises(StateChanged, match="single tensor"):
        run(lambda state, x: ((state, x), x))


def test_a_first_state_of_none_is_told_what_to_begin_with() -> None:
    """As cells take it that make their state themselves: a tree like * was expected"""
    cell = nn.LSTMCell(6, 6).double()
    with pytest.raises(StateChanged, match=r"None, is expected, not a tuple of 2: begin with"):
        unroll(lambda state, x: (cell(x, state), None), None, sequence(), plan=PLAN, module=cell)


def test_a_step_that_returns_its_output_first_is_told_the_order() -> None:
    with pytest.raises(StateChanged, match="its output after it"):
        run(lambda state, x: ((state + x).sum(), state + x))


@pytest.mark.parametrize("series", [range(6), (number for number in range(6)), DataLoader([1.0, 2.0])])
@pytest.mark.parametrize("length", [None, 6])
def test_inputs_that_can_only_be_gone_through_are_refused(series: Any, length: int | None) -> None:
    """Every step would be handed the whole of them."""
    kind = type(series).__name__
    with pytest.raises(TypeError, match=rf"inputs are a {kind}, .*torch\.stack.*callable of t"):
        run(lambda state, x: (state + x, None), inputs=series, length=length)


def test_a_step_that_writes_into_its_state_is_refused_and_the_state_is_untouched() -> None:
    state = states()
    before = state.detach().clone()
    with pytest.raises(StateMutated, match="in place"):
        run(lambda state, x: (state.add_(x), x), state)
    assert torch.equal(state, before)


def test_a_step_that_writes_into_an_integer_state_is_refused() -> None:
    """Autograd would not notice: the version counter does."""

    def step(state: tuple[Tensor, Tensor], x: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        hidden, counter = state
        counter += 1
        return (hidden + x, counter.clone()), x

    with pytest.raises(StateMutated):
        run(step, (states(), torch.zeros(1, dtype=torch.long)))


def test_an_undeclared_parameter_is_named() -> None:
    cell = nn.GRUCell(6, 6).double()
    with pytest.raises(CaptureError, match=r"parameter 'weight_ih' .*'cell'.*module="):
        run(lambda state, x: (cell(x, state), None))


def test_an_undeclared_captured_tensor_is_named_leaf_or_not() -> None:
    leaf = torch.ones(6, dtype=torch.float64, requires_grad=True)
    with pytest.raises(CaptureError, match="'leaf'"):
        run(lambda state, x: (state * leaf + x, None))
    made = leaf * 2
    with pytest.raises(CaptureError, match="'made'"):
        run(lambda state, x: (state * made + x, None))
    unroll(lambda state, x: (state * made.detach() + x, None), states(), sequence(), plan=PLAN)


def test_parameters_that_a_module_reaches_by_a_dictionary_are_to_be_captured_too() -> None:
    """The advice was to declare their module, which had been done; some liquid cells are written so"""
    cell = nn.GRUCell(6, 6).double()
    weights = dict(cell.named_parameters())
    state, inputs = states(), sequence()

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, None]:
        return torch.func.functional_call(cell, weights, (x, state)) + weights["bias_ih"][:6], None

    with pytest.raises(CaptureError, match=r"'bias_ih'.*parameters of module=.*captured="):
        run(step, state, inputs=inputs, module=cell)
    _, last = run(step, state, inputs=inputs, module=cell, captured=[*cell.parameters()])
    expected = state
    for x in inputs:
        expected, _ = step(expected, x)
    for one, two in zip(
        *(torch.autograd.grad(h.sum(), cell.parameters()) for h in (last, expected)), strict=True
    ):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


def test_a_capture_that_the_first_call_did_not_show_is_refused_in_a_later_one() -> None:
    """The same lines with another tensor: each call looks at one of its tapes."""
    scale = [torch.ones(6, dtype=torch.float64)]

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.tanh(state * scale[0] + x), x

    state, inputs = states(), sequence()
    unroll(step, state, inputs, plan=PLAN)
    scale[0] = torch.ones(6, dtype=torch.float64, requires_grad=True)
    with pytest.raises(CaptureError):
        unroll(step, state, inputs, plan=PLAN)


def test_outputs_that_cannot_be_stacked_are_refused() -> None:
    with pytest.raises(UnsupportedOutput, match=r"has NoneType, float in it: .* in place of value\.item\(\)"):
        run(lambda state, x: (state + x, {"loss": 1.0, "extra": None, "state": state}))
    lengths = iter((1, 2) * 1000)
    with pytest.raises(UnsupportedOutput, match="agree"):
        run(lambda state, x: (state + x, torch.zeros(next(lengths))))


@pytest.mark.parametrize("first", [torch.float32, torch.int64, torch.bool])
def test_a_sum_that_would_lose_digits_is_refused(first: torch.dtype) -> None:
    """Zeros of torch's default type before losses in float64: the sum was one of float32, without a word."""
    nothing = torch.zeros((), dtype=first)

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return state + x, nothing if x[0, 0] < 0 else state.sum()

    inputs = torch.ones(STEPS, 3, SIZE, dtype=torch.float64)
    inputs[0] = -1
    with pytest.raises(UnsupportedOutput, match=rf"float64 after {first}.*state\.new_zeros"):
        run(step, inputs=inputs, reduce="sum")


def test_a_sum_takes_what_its_type_can_hold() -> None:
    """Outputs in float32 after those in float64"""
    total, _ = run(
        lambda state, x: (state + x, state.sum().float() if x[0, 0] < 0 else state.sum()),
        inputs=torch.linspace(1, -1, STEPS, dtype=torch.float64)[:, None, None].expand(STEPS, 3, SIZE),
        reduce="sum",
    )
    assert total.dtype == torch.float64


@pytest.mark.parametrize("length", [STEPS - 1, STEPS + 1, 2 * STEPS])
def test_a_plan_for_another_length_is_refused(length: int) -> None:
    with pytest.raises(PlanMismatch, match=f"{length} steps"):
        unroll(lambda s, x: (s + x, None), states(), sequence(), plan=tape_everything(length, 1))


def test_a_plan_for_another_batch_is_refused() -> None:
    """Its gradients would be right and its peak another one."""
    cell = nn.GRUCell(6, 6)

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, None]:
        return cell(x, state), None

    plan = predict(step, torch.zeros(2, 6), torch.randn(9, 2, 6), budget="1MiB", module=cell).plan
    with pytest.raises(PlanMismatch, match=r"48 bytes, these have 72.*budget"):
        unroll(step, torch.zeros(3, 6), torch.randn(9, 3, 6), plan=plan, module=cell)


@pytest.mark.parametrize(
    ("planned", "run", "difference"),
    [
        ({"reduce": "sum"}, {"reduce": "stack"}, "reduce='sum', this loop has reduce='stack'"),
        ({"final_state": "detached"}, {}, "a gradient of the last state may come"),
        ({}, {"differentiable_inputs": True}, "1008 bytes of gradients .* here they take 1440"),
    ],
)
def test_a_plan_for_less_than_the_loop_asks_for_is_refused(
    planned: dict[str, Any], run: dict[str, Any], difference: str
) -> None:
    """More outputs and gradients than it counts would come on top of its peak; less is welcome."""
    cell = nn.GRUCell(6, 6)

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = cell(x, state)
        return state, state.square()

    def loop(*, differentiable_inputs: bool = False, **options: Any) -> dict[str, Any]:
        x = torch.ones(9, 2, 6, requires_grad=differentiable_inputs)
        return {"step": step, "state": torch.zeros(2, 6), "inputs": x, "module": cell, **options}

    plan = predict(**loop(**planned), budget="1MiB").plan
    with pytest.raises(PlanMismatch, match=difference):
        unroll(**loop(**run), plan=plan)
    unroll(**loop(**{**planned, "final_state": "detached"}), plan=plan)


def test_random_numbers_that_the_probe_did_not_see_are_refused() -> None:
    """A step that draws only later on: recomputation would draw other numbers."""
    steps = [0]

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, None]:
        steps[0] += 1
        noise = torch.randn_like(state) if steps[0] > 8 else 0.0
        return torch.tanh(state + x + noise), None

    with pytest.raises(ReplayError, match="random numbers"):
        run(step)


def test_a_buffer_that_changes_only_later_on_is_refused() -> None:
    """Recomputation would see its last value instead of the one that belongs to the step."""
    norm = nn.BatchNorm1d(6).double().eval()
    steps = [0]

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, None]:
        steps[0] += 1
        if steps[0] > 8:
            norm.running_mean.add_(1)
        return torch.tanh(norm(state) + x), None

    with pytest.raises(ReplayError, match="buffer"):
        run(step, module=norm)


class Boom(Exception):
    """Raised by a step."""


def fail(how: str) -> None:
    """Fail as a step may: by itself, by Ctrl-C, for want of memory on a GPU, and truly for want of memory."""
    if how == "allocation":
        torch.empty(2**60, dtype=torch.uint8)
    raise {"error": Boom, "interrupt": KeyboardInterrupt, "out of memory": torch.OutOfMemoryError}[how]


@pytest.mark.parametrize("how", ["error", "interrupt", "out of memory", "allocation"])
@pytest.mark.parametrize("call", [3, STEPS + 2, STEPS + 7], ids=["forward", "recomputation", "later"])
def test_a_step_that_fails_leaves_everything_as_it_was(call: int, how: str) -> None:
    """Parameters, buffers, the random stream and memory; in forward and in the middle of recomputation.
    The next call, of a step that does not fail, works.
    """
    cell = nn.Sequential(nn.Dropout(0.3), nn.BatchNorm1d(6)).double()
    linear = nn.Linear(6, 6).double()
    module = nn.ModuleList([cell, linear])
    calls = [-(10**6)]
    held: list[weakref.ref[Tensor]] = []

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, None]:
        calls[0] += 1
        if calls[0] == call:
            fail(how)
        state = torch.tanh(linear(cell(state)) + x)
        held.append(weakref.ref(state))
        return state, None

    state, inputs = states(), sequence()
    unroll(step, state, inputs, plan=PLAN, module=module)  # known from here on
    parameters = {name: (p, p.detach().clone()) for name, p in module.named_parameters()}
    buffers = [(b, b.clone()) for b in module.buffers()]
    stream = torch.get_rng_state()
    calls[0] = 0
    held.clear()
    forward_done = False
    try:
        _, final = unroll(step, state, inputs, plan=PLAN, module=module)
        forward_done = True
        buffers = [(b, b.clone()) for b in module.buffers()]
        stream = torch.get_rng_state()
        final.sum().backward()
        pytest.fail("the step should have raised")
    except (Boom, KeyboardInterrupt, RuntimeError):
        pass
    assert forward_done == (call > STEPS)
    for name, parameter in module.named_parameters():
        assert parameter is parameters[name][0]
        assert torch.equal(parameter, parameters[name][1])
        assert parameter.grad is None
    for buffer, (same, value) in zip(module.buffers(), buffers, strict=True):
        assert buffer is same
        assert torch.equal(buffer, value)
    assert torch.equal(torch.get_rng_state(), stream)
    final = None
    gc.collect()
    assert not any(reference() is not None for reference in held)
    unroll(step, state, inputs, plan=PLAN, module=module)[1].sum().backward()
    assert all(parameter.grad is not None for parameter in linear.parameters())


def test_control_c_after_the_last_step_puts_streams_and_buffers_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """While what the steps read is noted, at the end of the forward pass."""
    norm = nn.BatchNorm1d(6).double()

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, None]:
        return nn.functional.dropout(norm(state), 0.3) + x, None

    state, inputs = states(), sequence()
    unroll(step, state, inputs, plan=PLAN, module=norm)
    mean, stream = norm.running_mean.clone(), torch.get_rng_state()
    monkeypatch.setattr(Watch, "look", lambda _watch: fail("interrupt"))
    with pytest.raises(KeyboardInterrupt):
        unroll(step, state, inputs, plan=PLAN, module=norm)
    assert torch.equal(norm.running_mean, mean)
    assert torch.equal(torch.get_rng_state(), stream)


def test_control_c_in_backward_leaves_the_parameters_in_place() -> None:
    """An interrupt is passed on after the module has its own parameters again."""
    case = cell_case("GRU")
    cell = case.modules()[0]
    weight = cell.weight_hh
    calls = [0]

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        calls[0] += 1
        if calls[0] == -1:
            raise KeyboardInterrupt
        return case.step(state, x)

    outputs, _ = unroll(step, case.state, case.inputs, plan=PLAN, module=case.module)
    calls[0] = -5
    with pytest.raises(KeyboardInterrupt):
        outputs.sum().backward()
    assert cell.weight_hh is weight
    expected = gradients(case, lambda: plain(case))
    found = gradients(case, lambda: unroll(case.step, case.state, case.inputs, plan=PLAN, module=case.module))
    assert all(torch.equal(a, b) for a, b in zip(found[2], expected[2], strict=True))


def test_a_gradient_of_the_gradient_is_refused() -> None:
    case = cell_case("RNN")
    outputs, _ = unroll(case.step, case.state, case.inputs, plan=PLAN, module=case.module)
    with pytest.raises(DoubleBackward, match="create_graph"):
        torch.autograd.grad(outputs.sum(), case.state, create_graph=True)


def test_a_second_backward_is_refused() -> None:
    case = cell_case("RNN")
    outputs, _ = unroll(case.step, case.state, case.inputs, plan=PLAN, module=case.module)
    outputs.sum().backward(retain_graph=True)
    with pytest.raises(DoubleBackward, match="already"):
        outputs.sum().backward()


def test_an_optimizer_step_before_backward_is_noticed() -> None:
    """Recomputation would use the new weights: full BPTT refuses that too."""
    case = cell_case("RNN")
    outputs, _ = unroll(case.step, case.state, case.inputs, plan=PLAN, module=case.module)
    with torch.no_grad():
        case.modules()[0].weight_hh.mul_(0.5)
    with pytest.raises(ModifiedBetweenPasses, match="weight_hh"):
        outputs.sum().backward()


def test_an_input_changed_before_backward_is_noticed() -> None:
    case = cell_case("RNN")
    outputs, _ = unroll(case.step, case.state, case.inputs, plan=PLAN, module=case.module)
    with torch.no_grad():
        case.inputs.add_(1)
    with pytest.raises(ModifiedBetweenPasses, match="input"):
        outputs.sum().backward()


def test_a_step_that_writes_into_its_inputs_is_refused_and_they_are_untouched() -> None:
    """Before anything of the caller's was written to; in a later call, by the engine"""
    linear = nn.Linear(SIZE, SIZE).double()
    writes = [True]

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        if writes[0]:
            x.mul_(0.5)
        state = torch.tanh(linear(state) + x)
        return state, state

    x = sequence(requires_grad=False)
    before = x.clone()
    with pytest.raises(StateMutated, match="its inputs in place"):
        run(step, inputs=x, module=linear)
    assert torch.equal(x, before)
    writes[0] = False
    run(step, inputs=x, module=linear)
    writes[0] = True
    with pytest.raises(StateMutated, match="its inputs in place"):
        run(step, inputs=x, module=linear)
