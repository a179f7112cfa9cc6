"""The loops that the tests on a CUDA device train."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from executor import BudgetTooSmall, predict, unroll
from executor.loop import Loop
from executor.offload.host import HostMemory
from executor.plan import ExecutionPlan
from executor.planner import best_plan, in_process
from executor.probe import probe_loop
from executor.probe_report import ProbeReport
from executor.probe_tapes import beside_host_memory
from planner_service.chain import EMPTY, ArchiveNode, Policy

STEPS, BATCH, SIZE = 400, 32, 256


def fused(kind: str) -> dict[str, Any]:
    """Segments of a module of torch's, with the loss inside, which is the same however long the segments are:
    arguments of `unroll`, the budget apart.
    """
    module = getattr(nn, kind)(SIZE, SIZE).cuda()

    def segment(state: Any, x: Tensor) -> tuple[Any, Tensor]:
        output, state = module(x, state)
        return state, output.square().mean(dim=(1, 2)).sum()

    zero = torch.zeros(1, BATCH, SIZE, device="cuda")
    state = (zero, zero.clone()) if kind == "LSTM" else zero
    inputs = torch.randn(STEPS, BATCH, SIZE, device="cuda")
    return {
        "step": None,
        "segment": segment,
        "state": state,
        "inputs": inputs,
        "module": module,
        "reduce": "sum",
        "final_state": "detached",
    }


def least_budget(loop: dict[str, Any]) -> int:
    """The bytes below which no plan fits."""
    with pytest.raises(BudgetTooSmall) as refusal:
        predict(**loop, budget=1)
    return refusal.value.minimum_budget_bytes


def between(loop: dict[str, Any], share: float) -> int:
    """A budget from the least one (0) to that of full BPTT (1), in bytes."""
    least = least_budget(loop)
    return least + int(share * (predict(**loop, budget="8GiB").full_bptt_peak_bytes - least))


def trained(loop: dict[str, Any], budget: int, **options: Any) -> Tensor:
    """One iteration without older gradients: the loss."""
    loop["module"].zero_grad(set_to_none=True)
    loss: Tensor = unroll(**loop, budget=budget, **options)[0]
    torch.autograd.backward(loss)
    return loss.detach()


def planned(loop: dict[str, Any], plan: ExecutionPlan) -> Tensor:
    """The same under `plan`."""
    loop["module"].zero_grad(set_to_none=True)
    loss: Tensor = unroll(**loop, plan=plan)[0]
    torch.autograd.backward(loss)
    return loss.detach()


HOST_BYTES = 256 * 2**20


def with_states_on_host(arguments: dict[str, Any], budget: int) -> tuple[ExecutionPlan, ProbeReport]:
    """A plan that moves states, and the probe that it was made from: as if moving them took no time, so that
    it is quicker than running steps again on whatever device.
    """
    loop = Loop.of(**arguments)
    report = probe_loop(loop, budget_bytes=budget)
    host = HostMemory.beside(loop, report.needs, HOST_BYTES)
    free = replace(host, write_seconds=0.0, read_seconds=0.0)
    return best_plan(report, budget, in_process, free), report


def with_tapes_on_host(
    arguments: dict[str, Any], budget: int, *, segment_steps: int
) -> tuple[ExecutionPlan, ProbeReport]:
    """The plan that moves every tape, whether that is faster than others or not."""
    loop = Loop.of(**arguments)
    report = probe_loop(loop, budget_bytes=budget, candidates=[segment_steps])
    report = beside_host_memory(loop, report, budget, HOST_BYTES)
    policy = Policy((ArchiveNode(STEPS // segment_steps, EMPTY),), 0)
    tapes = report.host_tapes(segment_steps)
    return ExecutionPlan(STEPS, segment_steps, policy, host_tapes=tapes), report
