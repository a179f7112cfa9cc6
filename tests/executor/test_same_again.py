"""A step that would not do the same when it runs again is refused at the first call, by what it changes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from executor import CaptureError, ReplayError, StateMutated, UnsupportedHook, UnsupportedOutput, unroll
from executor.plan import checkpoint_every, tape_everything
from tests.executor.loops import BATCH, SIZE, STEPS, LoopCase, gradients, plain, sequence, states

PLAN = checkpoint_every(STEPS, 1, 3)


class Tracing(nn.Module):
    """Keeps a trace in a tensor that is no buffer."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell, self.trace = cell, torch.zeros(SIZE, dtype=torch.float64)

    def forward(self, state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = self.cell(x, state)
        self.trace = 0.9 * self.trace + state.detach().mean(0)
        return state * (1 + self.trace.tanh()), state


def by_teacher(cell: nn.GRUCell) -> tuple[Any, Any]:
    ema = nn.Linear(SIZE, SIZE).double().requires_grad_(False)

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = cell(x, state)
        ema.weight.mul_(0.9)
        return state + ema(state.detach()).tanh() * state, state

    return step, (cell, ema)


def by_closure(cell: nn.GRUCell) -> tuple[Any, Any]:
    total = torch.zeros(SIZE, dtype=torch.float64)

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = cell(x, state)
        total.add_(state.detach().mean(0))
        return state * (1 + total.tanh()), state

    return step, cell


def by_attribute(cell: nn.GRUCell) -> tuple[Any, Any]:
    module = Tracing(cell)
    return module, module


def by_list(cell: nn.GRUCell) -> tuple[Any, Any]:
    past: list[Tensor] = []

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = cell(x + (past[-1] if past else 0), state)
        past.append(state.detach())
        return state, state

    return step, cell


def by_counter(cell: nn.GRUCell) -> tuple[Any, Any]:
    counter = count()

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = cell(x * (1 + next(counter)), state)
        return state, state

    return step, cell


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (by_teacher, r" \(it changes parameter 'weight' of captured 'ema'\)"),
        (by_closure, r" \(it changes captured 'total'\)"),
        (by_attribute, r" \(it changes captured 'Tracing.trace'\)"),
        (by_list, r" \(it changes captured 'past\[…\]'\)"),
        (by_counter, ""),
    ],
)
def test_what_a_step_keeps_besides_its_state_is_refused(
    make: Callable[[nn.GRUCell], tuple[Any, Any]], what: str
) -> None:
    step, module = make(nn.GRUCell(SIZE, SIZE).double())
    with pytest.raises(ReplayError, match=f"streams{what}: what it keeps .* must be part of its state"):
        unroll(step, states(), sequence(), module=module, plan=PLAN)


def test_inputs_from_an_iterator_are_refused() -> None:
    """What was taken from it is gone when steps run again"""
    batches, step = iter(sequence(requires_grad=False)), lambda h, x: (torch.tanh(h + x), h)
    with pytest.raises(ReplayError, match="iterators"):
        unroll(step, states(), lambda t: next(batches), length=STEPS, plan=PLAN)


def test_sums_without_an_order_are_the_same_but_for_rounding() -> None:
    """Kernels of a device may add in any order: here a step does, by the number of its calls"""
    calls = count()

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = torch.tanh(state + x) * (1 + next(calls) * torch.finfo(torch.float64).eps)
        return state, state

    outputs, _ = unroll(step, states(), sequence(), plan=PLAN)
    outputs.sum().backward()


def test_steps_may_count_and_log() -> None:
    """What nothing is made of may be anything"""
    calls, lines = count(), []

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        lines.append(f"step {next(calls)}")
        state = torch.tanh(state + x)
        return state, state

    case = LoopCase(step, states(), sequence())
    expected = gradients(case, lambda: plain(case))
    found = gradients(case, lambda: unroll(step, case.state, case.inputs, plan=PLAN))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


class Holder(nn.Module):
    """A buffer that may be another's, or a part of it."""

    def __init__(self, buffer: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", buffer)


def following(cell: nn.GRUCell, written: Holder, read: Holder) -> LoopCase:
    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = cell(x, state)
        with torch.no_grad():
            written.mean.lerp_(state.mean(0), 0.3)
        return state * (1 + read.mean), state

    return LoopCase(step, states(), sequence(), (cell, written, read))


def test_tied_buffers_stay_tied_while_steps_run_again() -> None:
    cell, found = nn.GRUCell(SIZE, SIZE).double(), []
    for is_planned in (False, True):
        buffer = torch.zeros(SIZE, dtype=torch.float64)
        torch.manual_seed(5)
        case = following(cell, Holder(buffer), Holder(buffer))
        run = (
            (lambda case=case: unroll(case.step, case.state, case.inputs, module=case.module, plan=PLAN))
            if is_planned
            else (lambda case=case: plain(case))
        )
        found.append(gradients(case, run)[2][2:])
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-12)


def test_a_buffer_that_is_a_view_of_another_is_refused_by_name() -> None:
    whole = torch.zeros(2, SIZE, dtype=torch.float64)
    case = following(nn.GRUCell(SIZE, SIZE).double(), Holder(whole), Holder(whole[0]))
    with pytest.raises(StateMutated, match="one is a view of the other"):
        unroll(case.step, case.state, case.inputs, module=case.module, plan=PLAN)
    assert not whole.any()


def test_a_step_that_fails_leaves_the_buffers_that_it_replaced() -> None:
    """The same tensors, with the same values"""

    class Growing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self._fails = False
            self.register_buffer("past", torch.zeros(1, SIZE, dtype=torch.float64))

        def forward(self, state: Any, x: Tensor) -> Any:
            hidden, step = state
            hidden = torch.tanh(hidden + x)
            self.past = torch.cat([self.past, hidden.detach()[:1]])
            if step == STEPS - 2 and self._fails:
                raise ValueError("mine")
            return (hidden, step + 1), hidden

    module = Growing()
    past = module.past
    unroll(module, (states(), 0), sequence(), plan=PLAN)
    module.past, module._fails = past, True
    with pytest.raises(ValueError, match="mine"):
        unroll(module, (states(), 0), sequence(), plan=PLAN)
    assert module.past is past
    assert past.shape == (1, SIZE)


def test_a_hook_on_the_state_that_comes_in_is_refused() -> None:
    """It would see the gradient of one step; and none reaches the caller's tensor"""
    cell, initial = nn.GRUCell(SIZE, SIZE).double(), states()

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        if state.requires_grad:
            state.register_hook(lambda gradient: gradient.clamp(-0.1, 0.1))
        state = cell(x, state)
        return state, state

    with pytest.raises(UnsupportedHook, match="register it on the new state"):
        unroll(step, initial, sequence(), module=cell, plan=PLAN)
    assert not initial._backward_hooks


@pytest.mark.parametrize("reduce", ["stack", "sum", "last"])
@pytest.mark.parametrize("segment_steps", [1, 4, STEPS])
@pytest.mark.parametrize("is_first", [True, False])
def test_outputs_at_some_steps_only_are_refused(reduce: Any, segment_steps: int, is_first: bool) -> None:
    """None before a loss begins, or after it ended: a segment is not to be judged by its first step"""

    def step(state: Tensor, given: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        state = torch.tanh(state + given["x"])
        return state, state.mean() if given["on"] else None

    on = (torch.arange(STEPS) < 3) ^ is_first
    with pytest.raises(UnsupportedOutput, match="return zeros where there is nothing"):
        unroll(
            step,
            states(),
            {"x": sequence(), "on": on},
            reduce=reduce,
            plan=tape_everything(STEPS, segment_steps),
        )


@pytest.mark.parametrize("at", [0, 5, STEPS - 1])
def test_a_capture_that_one_step_uses_is_refused(at: int) -> None:
    """Whichever step is taped first"""
    cell, other = nn.GRUCell(SIZE, SIZE).double(), nn.Linear(SIZE, SIZE).double()

    def step(state: Any, x: Tensor) -> Any:
        hidden, index = state
        hidden = cell(x, hidden)
        return (other(hidden) if index == at else hidden, index + 1), hidden

    def run() -> None:
        outputs, _ = unroll(step, (states(), 0), sequence(), module=cell, plan=PLAN)
        outputs.sum().backward()

    with pytest.raises(CaptureError, match="'other'"):
        run()
    assert other.weight.grad is None


def test_objects_with_tensors_that_are_no_trees_are_refused() -> None:
    class Carried:
        def __init__(self, hidden: Tensor) -> None:
            self.hidden = hidden

    def step(state: Carried, x: Tensor) -> tuple[Carried, Tensor]:
        hidden = torch.tanh(state.hidden + x)
        return Carried(hidden), hidden

    for steps in (1, STEPS):
        state, plan = Carried(torch.zeros(BATCH, SIZE)), tape_everything(steps, 1)
        with pytest.raises(TypeError, match=r"a Carried with tensors in it .* register it"):
            unroll(step, state, sequence()[:steps], plan=plan)


def test_a_generator_in_the_state_is_replayed() -> None:
    cell, found = nn.GRUCell(SIZE, SIZE).double(), []

    def step(state: Any, x: Tensor) -> Any:
        hidden, generator = state
        hidden = cell(x, hidden * torch.rand(hidden.shape, generator=generator, dtype=torch.float64))
        return (hidden, generator), hidden

    for plan in (None, PLAN):
        torch.manual_seed(5)
        state = (states(), torch.Generator().manual_seed(1))
        case = LoopCase(step, state, sequence(), cell)
        found.append(
            gradients(
                case,
                lambda case=case, plan=plan: (
                    plain(case)
                    if plan is None
                    else unroll(step, case.state, case.inputs, module=cell, plan=plan)
                ),
            )[2]
        )
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)
