"""Two threads that run loops of one module at the same time are refused: its parameters are replaced."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from torch import Tensor, nn

from executor import unroll
from executor.errors import ConcurrentUse
from executor.plan import checkpoint_every
from tests.executor.loops import SIZE, STEPS, sequence, states

PLAN = checkpoint_every(STEPS, 1, 3)


def test_a_second_thread_is_refused_while_a_step_runs_and_welcome_afterwards() -> None:
    """From inside the first one's step, so that there is nothing to chance"""
    cell, found = nn.GRUCell(SIZE, SIZE).double(), []

    def second() -> None:
        try:
            unroll(plain_step, states(), sequence(), module=nn.ModuleList([cell]), plan=PLAN)
        except ConcurrentUse as refusal:
            found.append(str(refusal))
        else:
            found.append("ran")

    def plain_step(state: Tensor, x: Tensor) -> Any:
        state = cell(x, state)
        return state, state

    def step(state: Tensor, x: Tensor) -> Any:
        if not found:
            thread = threading.Thread(target=second)
            thread.start()
            thread.join()
        return plain_step(state, x)

    before = dict(cell.named_parameters())
    outputs, _ = unroll(step, states(), sequence(), module=cell, plan=PLAN)
    outputs.sum().backward()
    assert "another thread" in found[0]
    second()
    assert found[1] == "ran"
    assert all(before[name] is each for name, each in cell.named_parameters())


def test_a_loop_inside_a_loop_may_use_the_same_module() -> None:
    cell = nn.GRUCell(SIZE, SIZE).double()

    def inner(state: Tensor, _: None) -> Any:
        state = cell(state, state)
        return state, None

    def step(state: Tensor, x: Tensor) -> Any:
        _, state = unroll(inner, state + x, None, length=2, module=cell, plan=checkpoint_every(2, 1, 1))
        return state, state

    outputs, _ = unroll(step, states(), sequence(), module=cell, plan=PLAN)
    outputs.sum().backward()
    assert cell.weight_hh.grad is not None


def test_modules_of_their_own_may_run_side_by_side() -> None:
    """What draws from the stream that all threads share is made before"""
    failures: list[BaseException] = []

    def train(cell: nn.Module, state: Tensor, inputs: Tensor) -> None:
        try:
            outputs, _ = unroll(lambda state, x: (cell(x, state),) * 2, state, inputs, module=cell, plan=PLAN)
            outputs.sum().backward()
        except BaseException as error:
            failures.append(error)

    cells = [nn.GRUCell(SIZE, SIZE).double() for _ in range(4)]
    threads = [threading.Thread(target=train, args=(cell, states(), sequence())) for cell in cells]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert all(cell.weight_hh.grad is not None for cell in cells)


def test_a_failure_inside_leaves_the_module_free() -> None:
    cell = nn.GRUCell(SIZE, SIZE).double()
    calls = [0]

    def step(state: Tensor, x: Tensor) -> Any:
        calls[0] += 1
        if calls[0] == 9:
            raise ValueError("boom")
        return (cell(x, state),) * 2

    with pytest.raises(ValueError, match="boom"):
        unroll(step, states(), sequence(), module=cell, plan=PLAN)
    found: list[Any] = []
    thread = threading.Thread(
        target=lambda: found.append(unroll(step, states(), sequence(), module=cell, plan=PLAN))
    )
    thread.start()
    thread.join()
    assert found


def test_threads_may_share_a_teacher() -> None:
    """A frozen module is not touched by either; from inside the other's step"""
    teacher = nn.Linear(SIZE, SIZE).double().requires_grad_(False)
    students = [nn.GRUCell(SIZE, SIZE).double() for _ in range(2)]
    given, found = (states(), sequence()), []

    def step_of(student: nn.Module, during: Any = None) -> Any:
        def step(state: Tensor, x: Tensor) -> Any:
            if during is not None and not found:
                thread = threading.Thread(target=during)
                thread.start()
                thread.join()
            state = student(teacher(x), state)
            return state, state

        return step

    def second() -> None:
        found.append(unroll(step_of(students[1]), *given, module=students[1], plan=PLAN)[0].sum())

    outputs, _ = unroll(step_of(students[0], second), *given, module=students[0], plan=PLAN)
    (outputs.sum() + found[0]).backward()
    assert all(student.weight_hh.grad is not None for student in students)
