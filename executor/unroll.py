"""`unroll`: train a loop of any step function inside a byte budget, with the gradients of full BPTT."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from executor.compiled import outside_compiled_graphs
from executor.drop_ins.computed_weights import computing_bytes
from executor.errors import BudgetTooSmall, ReplayError
from executor.execute import execute, run_without_gradients
from executor.known import Known, forget, known
from executor.loop import FinalState, Loop, StepFunction
from executor.memory.budget import parse_budget_bytes
from executor.plan import ExecutionPlan
from executor.predict import plan_for
from executor.rules.first_order import require_reverse_mode
from executor.stages.outputs import Reduce

RENEW = "this plan was made for. Take a new one of predict(…), or give a budget in its place"
RENEWED = "its plan was made for. The next call like it is looked into anew, and planned for such steps"
"""Of steps that keep less than those of a call do; where a plan was given, the line above."""


@outside_compiled_graphs
def unroll(
    step: StepFunction | None,
    state: Any,
    inputs: Any,
    *,
    budget: int | str | None = None,
    host_budget: int | str | None = None,
    plan: ExecutionPlan | None = None,
    planner: str | None = None,
    module: nn.Module | Sequence[nn.Module] | None = None,
    captured: Tensor | Sequence[Tensor] = (),
    reduce: Reduce = "stack",
    segment: StepFunction | None = None,
    length: int | None = None,
    final_state: FinalState = "differentiable",
) -> tuple[Any, Any]:
    """Run `state, y = step(state, inputs[t])` for t = 0..T-1; return the outputs and the last state.

    Args:
        step: one step; or None when `segment` is given.
        state: the initial state: a tensor, a tuple of tensors, or any pytree.
        inputs: a tensor [T, …] or a pytree of them; a callable of t; or None. The last two need `length`.
        budget: bytes (`2**29` or "512MiB") that this call may add, at its peak, to what was allocated
            when it began: states, tapes, gradients of the parameters, workspace, outputs, gradients of
            the outputs. The first call with new shapes probes the step, inside the same budget.
        host_budget: bytes of host memory, pinned on CUDA, that stored states or tapes may move to where
            that is faster than running steps again; they do not count against `budget`.
        plan: run this plan instead of asking the planner.
        planner: URL of a planning service; by default planning is done in this process.
        module: the module, or modules, whose parameters the step uses.
        captured: other tensors (or one) that the step uses and that need a gradient; none computed from
            another.
        reduce: outputs are stacked on dimension 0 ("stack"), added ("sum"), or only the last is kept.
        segment: a function of k steps, (state, x[k, …]) -> (state, outputs), in place of `step`: a fused
            kernel, say. Its outputs are [k, …] for "stack", and already added for "sum".
        length: T, where the inputs do not tell it.
        final_state: "differentiable": its gradient is part of the budget; "detached": none will come.

    Raises:
        BudgetTooSmall: with the least budget that would fit.
        StateChanged, StateMutated, CaptureError, UnsupportedOutput, UnsupportedHook, UnsupportedBackward:
            the step breaks a rule.
        GrowingMemory: each step keeps more tensors, besides its state and outputs.
        DependentCaptures: a captured tensor was computed from another one.
        ConcurrentUse: another thread is running a loop of the same module.
        UnsupportedTransform: inside a transform of torch.func, or with tangents of forward mode.

    """
    loop = Loop.of(
        step,
        state,
        inputs,
        module=module,
        captured=captured,
        reduce=reduce,
        segment=segment,
        length=length,
        final_state=final_state,
    )
    if plan is not None:
        return _run(loop, plan, RENEW)
    if budget is None:
        raise TypeError("give a budget in bytes, or a plan")
    return run_within(loop, budget, planner, host_budget)


def run_within(
    loop: Loop, budget: int | str, planner: str | None = None, host_budget: int | str | None = None
) -> tuple[Any, Any]:
    """The outputs and the last state of `loop`, run inside `budget`; see `unroll`."""
    require_reverse_mode(loop.everything())
    if not torch.is_grad_enabled():
        return run_without_gradients(loop)
    if not any(tensor.requires_grad for tensor in loop.tensors()):
        needs = None
        with suppress(ReplayError):  # nothing will run again
            needs = known(loop).needs(loop)  # refuses a tensor that needs one and was not declared
        return run_without_gradients(loop, needs)
    plan = _plan(loop, budget, planner, host_budget)
    return _run(loop, plan, RENEWED)


def _plan(loop: Loop, budget: int | str, planner: str | None, host_budget: int | str | None) -> ExecutionPlan:
    """The plan for what `budget` leaves beside weights that were computed for this call."""
    beside_bytes = sum(map(computing_bytes, loop.cached.made_for))
    if not beside_bytes:
        return plan_for(loop, budget, planner, host_budget)
    budget_bytes = parse_budget_bytes(budget)
    try:
        return plan_for(loop, max(1, budget_bytes - beside_bytes), planner, host_budget)
    except BudgetTooSmall as error:
        needed = error.minimum_budget_bytes + beside_bytes
        raise BudgetTooSmall(budget_bytes=budget_bytes, minimum_budget_bytes=needed) from error


def _run(loop: Loop, plan: ExecutionPlan, remedy: str) -> tuple[Any, Any]:
    """`remedy`: what is said where steps keep more than the plan counts."""
    require_reverse_mode(loop.everything())
    try:
        about = known(loop)
        return execute(loop, plan, about.needs(loop), tell=partial(_outgrown, about, plan, remedy))
    except ReplayError:
        forget(loop)
        raise


def _outgrown(about: Known, plan: ExecutionPlan, remedy: str, graph_bytes: int) -> None:
    about.outgrown(plan, graph_bytes)
    times = graph_bytes / max(1, plan.graph_bytes or 0)
    warnings.warn(
        "the steps of this call go by what is in their tensors, and its peak may have been above the budget: "
        f"they computed more, up to {times:.2f} times the bytes, than those that {remedy}",
        stacklevel=2,
    )
