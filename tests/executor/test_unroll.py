"""What `unroll` takes and returns: states, inputs and outputs of every kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from executor import BudgetTooSmall, CaptureError, UnsupportedHook, outputs_needed, unroll
from executor.plan import ExecutionPlan, checkpoint_every, tape_everything
from tests.executor.loops import (
    BATCH,
    SIZE,
    STEPS,
    LoopCase,
    cell_case,
    fused_case,
    gradients,
    loss_of,
    plain,
    sequence,
    states,
)

PLAN = checkpoint_every(STEPS, 1, 3)


def run(case: LoopCase, **options: Any) -> tuple[Any, Any]:
    return unroll(
        case.step,
        case.state,
        case.inputs,
        plan=options.pop("plan", None if "budget" in options else PLAN),
        module=case.module,
        **options,
    )


def assert_like_plain(case: LoopCase, **options: Any) -> None:
    expected = gradients(case, lambda: plain(case))
    found = gradients(case, lambda: run(case, **options))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_a_state_may_be_a_tree_with_numbers_and_none_in_it() -> None:
    """A dict with a Python counter, an integer tensor, a flag and an empty slot."""
    linear = nn.Linear(6, 6).double()

    def step(state: dict[str, Any], x: Tensor) -> tuple[dict[str, Any], Tensor]:
        hidden = torch.tanh(linear(state["h"]) + x / (1 + state["count"]))
        after = {
            "h": hidden,
            "count": state["count"] + 1,
            "ticks": state["ticks"] + 1,
            "on": ~state["on"],
            "nothing": None,
        }
        return after, hidden * state["ticks"]

    state = {
        "h": states(),
        "count": 0,
        "ticks": torch.ones(3, 1, dtype=torch.long),
        "on": torch.tensor(True),
        "nothing": None,
    }
    case = LoopCase(step, state, sequence(), linear)
    assert_like_plain(case)
    final = run(case)[1]
    assert final["count"] == STEPS
    assert int(final["ticks"][0]) == STEPS + 1
    assert final["nothing"] is None
    assert not final["ticks"].requires_grad


def test_several_states_of_different_shapes() -> None:
    first, second = nn.GRUCell(6, 4).double(), nn.GRUCell(4, 5).double()

    def step(state: tuple[Tensor, Tensor], x: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        one = first(x, state[0])
        two = second(one, state[1])
        return (one, two), two

    state = (
        torch.zeros(3, 4, dtype=torch.float64),
        torch.zeros(3, 5, dtype=torch.float64, requires_grad=True),
    )
    assert_like_plain(LoopCase(step, state, sequence(), [first, second]))


def test_inputs_may_be_a_tree() -> None:
    """A dict of sequences, one of them integers, beside a number that stays as it is."""
    embedding = nn.Embedding(5, 6).double()

    def step(state: Tensor, x: dict[str, Any]) -> tuple[Tensor, Tensor]:
        state = torch.tanh(state + embedding(x["token"]) + x["scale"] * x["x"])
        return state, state

    inputs = {"x": sequence(), "token": torch.randint(5, (STEPS, 3)), "scale": 0.5}
    assert_like_plain(LoopCase(step, states(), inputs, embedding))


def test_inputs_may_be_a_function_of_the_step() -> None:
    """Called again for a recomputed step, so that a long sequence need not exist."""
    linear = nn.Linear(6, 6).double()

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = torch.tanh(linear(state) + x)
        return state, state.sum()

    def inputs(t: int) -> Tensor:
        return torch.full((3, 6), float(t), dtype=torch.float64).sin()

    case = LoopCase(step, states(), inputs, linear)
    assert_like_plain(case, length=STEPS)
    assert_like_plain(case, length=STEPS, plan=checkpoint_every(STEPS, 5, 1))


def test_no_inputs_at_all() -> None:
    linear = nn.Linear(6, 6).double()
    case = LoopCase(lambda s, _: (torch.tanh(linear(s)), None), states(), None, linear)
    outputs, final = run(case, length=STEPS)
    assert outputs is None
    state = case.state
    for _ in range(STEPS):
        state = torch.tanh(linear(state))
    assert torch.equal(final, state)


def test_outputs_may_be_summed_and_a_loss_may_live_inside_the_step() -> None:
    """The sum is bitwise that of a Python loop, and nothing of length T is kept."""
    case = cell_case("LSTM")
    targets = torch.randn(STEPS, 3, 2, dtype=torch.float64)
    cell, head = case.modules()

    def step(state: Any, given: tuple[Tensor, Tensor]) -> tuple[Any, Tensor]:
        state = cell(given[0], state)
        return state, (head(state[0]) - given[1]).square().mean()

    case = LoopCase(step, case.state, (case.inputs, targets), case.module)
    leaves = case.leaves()
    state, total = case.state, None
    for x, target in zip(*case.inputs, strict=True):
        state, loss = step(state, (x, target))
        total = loss if total is None else total + loss
    expected = torch.autograd.grad(total, leaves)
    ours, _ = run(case, reduce="sum", final_state="detached")
    assert torch.equal(ours, total)
    assert all(torch.equal(a, b) for a, b in zip(torch.autograd.grad(ours, leaves), expected, strict=True))


def test_only_the_last_output_may_be_kept() -> None:
    case = cell_case("GRU")
    leaves = case.leaves()
    expected = plain(case)[0][-1]
    for plan in (PLAN, checkpoint_every(STEPS, 5, 1)):
        last, _ = run(case, reduce="last", plan=plan)
        assert torch.equal(last, expected)
        found = torch.autograd.grad(last.sum(), leaves)
        theirs = torch.autograd.grad(plain(case)[0][-1].sum(), leaves)
        torch.testing.assert_close(found, theirs, rtol=1e-12, atol=1e-12)


def test_outputs_may_be_trees() -> None:
    case = cell_case("GRU")

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        state, output = case.step(state, x)
        return state, {"logits": output, "best": output.argmax(1)}

    tree = LoopCase(step, case.state, case.inputs, case.module)
    assert_like_plain(tree)
    assert run(tree)[0]["best"].dtype == torch.int64


def test_a_detached_final_state_takes_no_gradient() -> None:
    case = cell_case("GRU")
    outputs, final = run(case, final_state="detached")
    assert outputs.requires_grad
    assert not final.requires_grad


def test_without_gradients_nothing_is_kept_and_the_numbers_are_the_same() -> None:
    """Under no_grad, and where nothing needs a gradient; a segment function too."""
    case = cell_case("LSTM")
    expected = plain(case)
    with torch.no_grad():
        outputs, final = unroll(case.step, case.state, case.inputs, budget="1MiB", module=case.module)
    assert torch.equal(outputs, expected[0])
    assert torch.equal(final[1], expected[1][1])
    assert not outputs.requires_grad
    fused = fused_case("GRU")
    with torch.no_grad():
        outputs, _ = unroll(
            None, fused.state, fused.inputs, budget="1MiB", module=fused.module, **fused.options
        )
    torch.testing.assert_close(outputs, plain(fused)[0])


def test_where_nothing_needs_a_gradient_no_budget_is_looked_at_and_captures_are_refused() -> None:
    """A frozen module runs as under no_grad; an undeclared tensor that needs a gradient is still named"""
    cell, scale = nn.GRUCell(3, 4).requires_grad_(False), torch.ones(4)
    x, h = torch.randn(20, 2, 3), torch.zeros(2, 4)

    def step(h: Tensor, x_t: Tensor) -> tuple[Tensor, Tensor]:
        h = cell(x_t, h)
        return h, h * scale

    y, _ = unroll(step, h, x, module=cell, budget=1)
    with torch.no_grad():
        assert torch.equal(y, unroll(step, h, x, module=cell, budget=1)[0])
    scale.requires_grad_()
    with pytest.raises(CaptureError, match="scale"):
        unroll(step, h, x, module=cell, budget=1)


def test_a_step_that_is_a_module_brings_its_own_parameters() -> None:
    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.RNNCell(6, 6).double()

        def forward(self, state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            state = self.cell(x, state)
            return state, state

    module = Step()
    outputs, _ = unroll(module, states(), sequence(), plan=PLAN)
    outputs.sum().backward()
    assert module.cell.weight_hh.grad is not None


@pytest.mark.parametrize("budget", [0, -1, "0MiB", "many", "1.5 parsecs", True, None, 1.5])
def test_a_budget_must_be_a_positive_number_of_bytes(budget: Any) -> None:
    case = cell_case("RNN")
    with pytest.raises((ValueError, TypeError), match="budget"):
        unroll(case.step, case.state, case.inputs, budget=budget, module=case.module)


@pytest.mark.parametrize(
    ("length", "told"),
    [(0, "positive"), (-3, "positive"), (2.5, "positive"), (STEPS + 1, f"but the inputs have {STEPS} steps")],
)
def test_a_length_must_be_positive_and_agree_with_the_inputs(length: Any, told: str) -> None:
    case = cell_case("RNN")
    with pytest.raises(ValueError, match=f"^length={length}.*{told}"):
        unroll(case.step, case.state, case.inputs, length=length, plan=PLAN, module=case.module)
    with pytest.raises(ValueError, match="length"):
        unroll(case.step, case.state, None, plan=PLAN, module=case.module)


def test_the_budget_decides_how_the_loop_is_run_and_the_gradients_stay() -> None:
    """Ample, middling and least: same gradients, and one byte less than the least is refused."""
    case = cell_case("GRU")
    expected = gradients(case, lambda: plain(case))[2]
    with pytest.raises(BudgetTooSmall) as refusal:
        unroll(case.step, case.state, case.inputs, budget=1, module=case.module)
    least = refusal.value.minimum_budget_bytes
    for budget in (least, 2 * least, "1GiB"):
        outputs, state = unroll(case.step, case.state, case.inputs, budget=budget, module=case.module)
        found = torch.autograd.grad(loss_of(outputs, state), case.leaves())
        torch.testing.assert_close(list(found), expected, rtol=1e-12, atol=1e-12)


def test_inputs_that_a_module_computes_when_it_is_their_turn_have_its_gradient() -> None:
    """Each in the graph of its own step, however many steps a tape has"""
    embedding, cell = nn.Embedding(20, SIZE).double(), nn.GRUCell(SIZE, SIZE).double()
    tokens = torch.randint(0, 20, (STEPS, BATCH))

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = cell(x, state)
        return state, state

    case = LoopCase(step, states(), lambda t: embedding(tokens[t]), (embedding, cell))
    expected = gradients(case, lambda: plain(case))
    for segment_steps in (1, 2, 5, STEPS - 1, STEPS):
        plan = tape_everything(STEPS, segment_steps)
        found = gradients(case, lambda plan=plan: run(case, length=STEPS, plan=plan))  # type: ignore[misc]
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("has_gradients", [True, False])
def test_a_loop_inside_a_step_puts_out_what_the_step_needs(has_gradients: bool) -> None:
    """Also where the step runs again for its state alone, and where the inner loop has no gradients"""
    cell = nn.GRUCell(SIZE, SIZE).double()

    def inner(state: Tensor, x: Tensor) -> tuple[Tensor, Any]:
        state = cell(x, state)
        return state, state if outputs_needed() else None

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.set_grad_enabled(has_gradients and torch.is_grad_enabled()):
            outputs, _ = unroll(inner, state, torch.stack([x, 2 * x]), module=cell, budget="1MiB")
        state = torch.tanh(state + outputs.sum(0))
        return state, state

    case = LoopCase(step, states(), sequence(requires_grad=False), cell)
    expected = gradients(case, lambda: plain(case))
    found = gradients(case, lambda: run(case, plan=checkpoint_every(STEPS, 1, 3)))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_one_captured_tensor_may_be_given_by_itself() -> None:
    weight = torch.randn(SIZE, dtype=torch.float64, requires_grad=True)
    step = lambda state, x: (torch.tanh(state * weight + x),) * 2  # noqa: E731
    case = LoopCase(step, states(), sequence(), captured=[weight])
    expected = gradients(case, lambda: plain(case))
    found = gradients(
        case, lambda: unroll(case.step, case.state, case.inputs, captured=weight, budget="1MiB")
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"host_budget": -1}, "host_budget=-1"),
        ({"budget": "50%"}, "for LSTM, GRU and RNN"),
        ({"budget": "free"}, "for LSTM, GRU and RNN"),
    ],
)
def test_a_refused_budget_is_called_by_its_name(options: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        run(cell_case("GRU"), **{"budget": "1MiB", **options})


def test_numbers_of_numpy_are_budgets() -> None:
    assert run(cell_case("GRU"), budget=np.int64(2**20))


def test_parameters_in_the_place_of_their_module_are_refused() -> None:
    case = cell_case("GRU")
    parameters = case.modules()[0].parameters()
    with pytest.raises(TypeError, match="not Parameter"):
        unroll(case.step, case.state, case.inputs, module=parameters, budget="1MiB")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("returned", "what"), [(lambda s: s, "not Tensor"), (lambda s: (s, s, s), "not 3 values")]
)
def test_a_step_that_returns_something_else_than_a_pair_is_told(returned: Any, what: str) -> None:
    with pytest.raises(TypeError, match=what):
        unroll(lambda state, x: returned(torch.tanh(state + x)), states(), sequence(), budget="1MiB")


def test_operations_can_be_counted_where_state_and_inputs_need_gradients() -> None:
    """Torch's counter hooks modules by the graphs of what they are given: in an advance there is none"""
    case = cell_case("GRU")

    def counted(plan: ExecutionPlan) -> int:
        with FlopCounterMode(display=False) as counter:
            outputs, _ = unroll(case.step, case.state, case.inputs, module=case.module, plan=plan)
            outputs.sum().backward()
        return int(counter.get_total_flops())

    with pytest.raises(UnsupportedHook, match="call the loop once before"):
        counted(tape_everything(STEPS, 1))
    unroll(case.step, case.state, case.inputs, module=case.module, plan=tape_everything(STEPS, 1))
    once, twice = counted(tape_everything(STEPS, 1)), counted(checkpoint_every(STEPS, 1, 1))
    assert twice - once == once * (STEPS - 1) // (
        3 * STEPS
    )  # all but the last run again; a reverse is two runs


def test_inputs_made_in_inference_mode_are_constants() -> None:
    """Features of a frozen encoder, say: torch counts no versions of them"""
    with torch.inference_mode():
        inputs = torch.randn(STEPS, BATCH, SIZE, dtype=torch.float64)
    scale = torch.ones(SIZE, dtype=torch.float64, requires_grad=True)
    case = LoopCase(lambda s, x: (torch.tanh(s * scale + x),) * 2, states(), inputs, captured=[scale])
    expected = gradients(case, lambda: plain(case))[2]
    found = gradients(case, lambda: unroll(case.step, case.state, inputs, captured=scale, budget="1MiB"))[2]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("place", ["state", "inputs"])
def test_sparse_tensors_are_refused_with_the_way_round_them(place: str) -> None:
    sparse = torch.eye(STEPS, dtype=torch.float64).to_sparse()
    given: dict[str, Any] = {"state": torch.zeros(STEPS), "inputs": torch.zeros(STEPS, 1)} | {place: sparse}
    with pytest.raises(TypeError, match=r"sparse_coo tensor .* pass its indices and values"):
        unroll(lambda s, x: (s, x), **given, budget="1MiB")


@pytest.mark.parametrize(
    ("given", "way_round"),
    [((torch.zeros(1) for _ in range(STEPS)), r"generator .* callable of t"), (np.ones(STEPS), "from_numpy")],
)
def test_what_cannot_be_taken_apart_is_refused_with_the_way_round_it(given: Any, way_round: str) -> None:
    """Every step was handed the whole generator, or the whole array"""
    with pytest.raises(TypeError, match=way_round):
        unroll(lambda s, x: (s, s * x[1]), torch.zeros(()), (torch.zeros(STEPS), given), budget="1MiB")
