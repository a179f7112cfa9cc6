"""What no gradient comes to, a last state that the loss does not use, keeps nothing of its graph alive.

Its part of the graph saves a large tensor, is counted as if it were reversed, and is not.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from executor import measure
from executor.execute import execute
from executor.loop import Loop
from executor.memory.collector import nothing_collected
from executor.plan import ExecutionPlan, tape_everything
from executor.probe import probe_loop
from executor.probe_report import ProbeReport
from executor.probe_tapes import beside_host_memory
from executor.projection import projected_peak_bytes
from executor.reversible import RevGRU
from planner_service.chain import EMPTY, ArchiveNode, Policy
from tests.executor.rules.test_cycles import Noting

STEPS = 4
EVERY_STAGE = Policy((ArchiveNode(STEPS, EMPTY),), 0)


def part_of_a_large_tensor(given: Tensor) -> Tensor:
    """A view of sixteen times its bytes."""
    return (given.unsqueeze(-1) * given.unsqueeze(-2))[..., 0]


def called_by_itself(given: Tensor) -> Tensor:
    def descend(level: int) -> Tensor:
        return descend(level - 1) if level else part_of_a_large_tensor(given)

    return descend(2)


def noted(given: Tensor) -> Tensor:
    return Noting.apply(part_of_a_large_tensor(given))  # type: ignore[no-untyped-call]


def loop_with(function: Callable[[Tensor], Tensor]) -> Loop:
    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        first = function(state)
        return torch.tanh(first.square() + x), first.mean()

    state, x = torch.randn(64, 16, requires_grad=True), torch.randn(STEPS, 64, 16)
    return Loop.of(step, state, x, reduce="sum")


def reversible_loop() -> Loop:
    layer = RevGRU(8, 16)

    def segment(state: Any, x: Tensor) -> tuple[Any, Any]:
        state, y = layer.segment(state, x)
        first = part_of_a_large_tensor(y)
        return state, (first.mean(), first.square().mean())

    x = torch.randn(STEPS, 64, 8)
    return Loop.of(None, layer.initial_state(64), x, segment=segment, module=layer, reduce="sum")


def reversed_by_its_loss(loop: Loop, plan: ExecutionPlan, report: ProbeReport) -> int:
    """Measured bytes of a run whose first output alone gets a gradient."""

    def run() -> tuple[Tensor | None, ...]:
        outputs, _ = execute(loop, plan, report.needs)
        loss = outputs if isinstance(outputs, Tensor) else outputs[0]
        return torch.autograd.grad(loss, [each for each in loop.tensors() if each.requires_grad])

    return measure(run, device="cpu").peak_bytes


@pytest.mark.parametrize("function", [part_of_a_large_tensor, called_by_itself, noted])
def test_a_tape_on_the_device(function: Callable[[Tensor], Tensor]) -> None:
    """Whether steps leave reference cycles or not"""
    loop, plan = loop_with(function), tape_everything(STEPS, 1)
    report = probe_loop(loop, candidates=[1])
    assert reversed_by_its_loss(loop, plan, report) <= projected_peak_bytes(plan, report)


@pytest.mark.parametrize("function", [part_of_a_large_tensor, called_by_itself, noted])
def test_a_tape_that_comes_from_the_host(function: Callable[[Tensor], Tensor]) -> None:
    """It is on the device again as a whole, and goes as it is reversed"""
    loop = loop_with(function)
    report = beside_host_memory(loop, probe_loop(loop, candidates=[1]), 2**30, 2**26)
    plan = ExecutionPlan(STEPS, 1, EVERY_STAGE, host_tapes=report.host_tapes(1))
    assert reversed_by_its_loss(loop, plan, report) <= projected_peak_bytes(plan, report)


def test_a_function_of_a_tape_from_the_host_forgets_what_it_noted() -> None:
    """Its output, which leads back to it: nothing else would free the two before Python looks for cycles"""
    loop = loop_with(noted)
    report = beside_host_memory(loop, probe_loop(loop, candidates=[1]), 2**30, 2**26)
    plan = ExecutionPlan(STEPS, 1, EVERY_STAGE, host_tapes=report.host_tapes(1))
    kind = type(Noting.apply(torch.ones(1, requires_grad=True)).grad_fn)  # type: ignore[no-untyped-call]
    with nothing_collected():
        gc.collect()
        execute(loop, plan, report.needs)[0].backward()
        left = [each for each in gc.get_objects() if type(each) is kind]
    assert not left


def test_a_stage_that_is_undone() -> None:
    """Its tape is made of the state after it"""
    loop = reversible_loop()
    report = probe_loop(loop, candidates=[1])
    plan = ExecutionPlan(STEPS, 1, EVERY_STAGE)
    assert reversed_by_its_loss(loop, plan, report) <= projected_peak_bytes(plan, report)
