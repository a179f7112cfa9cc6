"""The engine does what the schedule says, no more: executions counted, memory held as the model charges."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from executor import PlanMismatch, is_recomputing, measure, outputs_needed, unroll
from executor.memory.trace import mark, record
from executor.plan import ExecutionPlan, checkpoint_every, tape_everything
from planner_service.chain import (
    Advance,
    Archive,
    Backward,
    Chain,
    Policy,
    Reversal,
    Stage,
    Tape,
    TapeNode,
    Undo,
    simulate,
)
from tests.executor.loops import PLANS, STEPS, cell_case, sequence, states

UNIT = Stage(forward_cost=1, taped_forward_cost=1, backward_cost=1, state_bytes=1, tape_bytes=2)


def planned_executions(plan: ExecutionPlan) -> Counter[int]:
    """How often each step (0-based) runs under the plan, read off its schedule."""
    counts: Counter[int] = Counter()
    for action in plan.schedule():
        if isinstance(action, Advance | Tape | Archive):
            first = (action.first - 1) * plan.segment_steps
            counts.update(range(first, min(action.last * plan.segment_steps, plan.length)))
    return counts


@pytest.mark.parametrize("name", PLANS)
def test_every_step_runs_as_often_as_the_plan_says(name: str) -> None:
    """Counted in the step itself, and the total is the simulator's."""
    plan = PLANS[name](STEPS)
    executions: Counter[int] = Counter()
    recomputed: Counter[int] = Counter()
    linear = nn.Linear(6, 6).double()

    def step(state: Tensor, given: tuple[Tensor, int]) -> tuple[Tensor, None]:
        executions[given[1]] += 1
        recomputed[given[1]] += is_recomputing()
        return torch.tanh(linear(state) + given[0]), None

    x = sequence()
    state = states()
    given = lambda t: (x[t], t)  # noqa: E731 - another one would be another loop, looked at anew
    unroll(step, state, given, length=STEPS, plan=plan, module=linear, captured=[x])
    executions.clear()
    recomputed.clear()
    _, final = unroll(step, state, given, length=STEPS, plan=plan, module=linear, captured=[x])
    assert not +recomputed
    final.sum().backward()
    assert executions == planned_executions(plan)
    assert +recomputed == executions - Counter(range(STEPS))
    chain = Chain.of([replace(UNIT, reversal=Reversal(archive_bytes=0, undo_cost=1))] * plan.policy.length)
    verdict = simulate(chain, plan.schedule())
    if plan.segment_steps == 1:
        assert executions.total() == verdict.advance_count + verdict.tape_count


def test_a_step_may_skip_its_output_when_only_the_state_is_wanted() -> None:
    """The head is not computed again by advances that recompute."""
    case = cell_case("GRU")
    cell, head = case.modules()
    heads = [0]

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor | None]:
        state = cell(x, state)
        if not outputs_needed():
            return state, None
        heads[0] += 1
        return state, head(state)

    plan = PLANS["two levels"](STEPS)
    outputs, _ = unroll(step, case.state, case.inputs, plan=plan, module=case.module)
    assert outputs.shape == (STEPS, 3, 2)
    heads[0] = 0
    outputs, _ = unroll(step, case.state, case.inputs, plan=plan, module=case.module)
    outputs.sum().backward()
    taped = sum(a.last - a.first + 1 for a in plan.schedule() if isinstance(a, Tape))
    first_advances = STEPS - _first_pass_tapes(plan)
    assert heads[0] == taped + first_advances


def _first_pass_tapes(plan: ExecutionPlan) -> int:
    count = 0
    for action in plan.schedule():
        if isinstance(action, Backward):
            break
        count += action.last - action.first + 1 if isinstance(action, Tape) else 0
    return count


def test_every_advance_and_tape_sees_the_modules_parameters_and_afterwards_they_are_real() -> None:
    """Shadows are in the module only while a pass runs."""
    case = cell_case("RNN")
    cell = case.modules()[0]
    real = cell.weight_hh
    outputs, _ = unroll(
        case.step, case.state, case.inputs, plan=tape_everything(STEPS, 3), module=case.module
    )
    assert cell.weight_hh is real
    outputs.sum().backward()
    assert cell.weight_hh is real
    assert real.grad is not None


class Scripted(ExecutionPlan):
    """A plan with a schedule of its own, right or wrong."""

    def schedule(self) -> Iterator[Any]:
        return iter(SCRIPT)


SCRIPT: list[Any] = []
WRONG = {
    "backward of what is not taped": [Advance(1, 11), Tape(12, 12), Backward(12, 11)],
    "tape from a state that is not there": [Advance(1, 4), Tape(6, 12)],
    "twice before the first backward": [Advance(1, 4), Advance(1, 3), Tape(5, 12)],
    "ends too early": [Advance(1, 11), Tape(12, 12), Backward(12, 12)],
    "does not tape the last stage": [Advance(1, 12), Backward(12, 12)],
    "outside the chain": [Advance(1, 13)],
}


@pytest.mark.parametrize("name", WRONG)
def test_a_schedule_that_breaks_the_rules_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a wrong gradient comes out; the simulator calls the same schedules illegal."""
    monkeypatch.setattr("tests.executor.test_engine.SCRIPT", WRONG[name])
    assert not simulate(Chain.of([UNIT] * STEPS), WRONG[name]).legal or "twice" in name
    plan = Scripted(STEPS, 1, Policy((TapeNode(STEPS, -1),), 0))
    case = cell_case("RNN")
    with pytest.raises(PlanMismatch):
        unroll(case.step, case.state, case.inputs, plan=plan, module=case.module)[0].sum().backward()
    assert all(parameter.grad is None for module in case.modules() for parameter in module.parameters())


def test_a_state_that_is_a_view_of_a_larger_storage_does_not_keep_it_alive() -> None:
    """A checkpoint holds its own bytes: eight states of which one slice of eight is used."""
    width, steps = 256, 40

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, None]:
        wide = torch.tanh(torch.cat([state] * 8, 1) + x)
        return wide[:, :width], None

    state = torch.zeros(4, width, requires_grad=True)
    inputs = torch.randn(steps, 4, 1)
    plan = checkpoint_every(steps, 1, 1)

    def run() -> None:
        unroll(step, state, inputs, plan=plan)[1].sum().backward()

    run()
    state.grad = None
    peak = measure(run).peak_bytes
    assert peak < (steps + 60) * state.nbytes, "each checkpoint would pin 8 states"


def test_two_hundred_iterations_leave_nothing_behind() -> None:
    """Live bytes after each iteration equal those after the first; no tape survives its backward."""
    case = cell_case("LSTM")
    plan = PLANS["two levels"](STEPS)
    alive: list[weakref.ref[Tensor]] = []

    def step(state: Any, x: Tensor) -> Any:
        state, output = case.step(state, x)
        alive.append(weakref.ref(state[0]))
        return state, output

    def iterate() -> None:
        for leaf in case.leaves():
            leaf.grad = None
        outputs, _ = unroll(step, case.state, case.inputs, plan=plan, module=case.module)
        outputs.sum().backward()

    iterate()
    gc.collect()
    gc.disable()
    try:
        for _ in range(200):
            alive.clear()
            iterate()
            assert not any(reference() is not None for reference in alive)
    finally:
        gc.enable()


def test_live_bytes_after_each_of_two_hundred_iterations_are_those_after_the_first() -> None:
    """Counted by the allocator, without the garbage collector's help."""
    steps = 4
    linear = nn.Linear(4, 4)
    state, x = torch.zeros(1, 4), torch.randn(steps, 1, 4)
    plan = checkpoint_every(steps, 1, 2)

    def iterate_often() -> None:
        for iteration in range(200):
            linear.zero_grad(set_to_none=True)
            unroll(lambda s, x: (torch.tanh(linear(s) + x), None), state, x, plan=plan, module=linear)[
                1
            ].sum().backward()
            mark(str(iteration))

    gc.disable()
    try:
        recording, _ = record(iterate_often)
    finally:
        gc.enable()
    live = [sample.live_bytes for sample in recording.samples() if sample.mark is not None]
    assert live == [linear.weight.nbytes + linear.bias.nbytes] * 200


def test_an_unused_result_is_freed_without_backward() -> None:
    """A forward whose result is dropped frees its tapes and checkpoints at once."""
    case = cell_case("GRU")
    alive: list[weakref.ref[Tensor]] = []

    def step(state: Any, x: Tensor) -> Any:
        state, output = case.step(state, x)
        alive.append(weakref.ref(state))
        return state, output

    result = unroll(step, case.state, case.inputs, plan=tape_everything(STEPS, 1), module=case.module)
    del result
    assert not any(reference() is not None for reference in alive)


@pytest.mark.parametrize("actions", [[Archive(1, STEPS)], [Tape(1, STEPS), Undo(STEPS, 1)]])
def test_a_run_that_cannot_undo_refuses_to(actions: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a schedule archives and its plan names neither reversible layers nor host memory"""
    case = cell_case("GRU")
    plan = tape_everything(STEPS, 1)
    monkeypatch.setattr(ExecutionPlan, "schedule", lambda _plan: iter(actions))
    with pytest.raises(PlanMismatch, match="nothing says how"):
        unroll(case.step, case.state, case.inputs, plan=plan, module=case.module)[0].sum().backward()
