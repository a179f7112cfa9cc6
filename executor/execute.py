"""The whole loop as one node of the caller's graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from executor.engine import Observer, Run
from executor.errors import DoubleBackward, PlanMismatch
from executor.loop import FinalState, Loop
from executor.memory.cuda_memory import workspaces_ready
from executor.offload.run import TieredRun
from executor.offload.tape_run import HostTapesRun
from executor.plan import ExecutionPlan
from executor.replay import state_only
from executor.reversal import passing
from executor.rules.first_order import first_order, forward_mode
from executor.rules.needs import Needs
from executor.rules.outgrowth import Outgrowth, Tell
from executor.rules.saved_tensor_hooks import (
    carrier_of,
    is_checkpointed,
    require_known_hooks,
    unloaded,
    without_callers_hooks,
)
from executor.rules.values import ByValues
from executor.stages.parameters import Parameters
from executor.undoing import UndoingRun

WITHOUT_GRADIENTS_STEPS = 100
"""Steps per call of a segment function where no gradient is needed."""


def execute(
    loop: Loop,
    plan: ExecutionPlan,
    needs: Needs,
    observer: Observer | None = None,
    tell: Tell | None = None,
) -> tuple[Any, Any]:
    """Run `loop` under `plan`; return the reduced outputs and the final state. After the backward pass `tell`
    is called where tapes were larger than those that the plan counts.

    Raises PlanMismatch when the plan is for another number of steps, or for another loop (`MadeFor`);
    UnsupportedHook within hooks on saved tensors that torch is too old to name.
    """
    if plan.length != loop.inputs.length:
        raise PlanMismatch(f"the plan is for {plan.length} steps, the inputs have {loop.inputs.length}")
    if plan.made_for is not None:
        plan.made_for.require(loop)
    parameters = Parameters(loop.modules)
    differentiable = _differentiable(loop, parameters)
    if not torch.is_grad_enabled() or not differentiable:
        return run_without_gradients(loop, needs)
    require_known_hooks()
    if loop.device.type == "cuda":
        workspaces_ready(loop.device)
    run = _run(loop, plan, needs, parameters, observer, tell)
    program = run.program
    final: list[Any] = []
    try:
        results = _Unrolled.apply(run, final, loop.final_state, *differentiable)  # type: ignore[no-untyped-call]
    finally:  # a checkpoint's second pass may end as soon as the run is saved
        run.cut_off(differentiable)
    count = len(results) - sum(isinstance(leaf, Tensor) for leaf in final)
    tensors = iter(results[count:])
    leaves = tuple(next(tensors) if isinstance(leaf, Tensor) else leaf for leaf in final)
    return program.outputs.result(results[:count]), loop.structure.unflatten(leaves)


def _run(
    loop: Loop,
    plan: ExecutionPlan,
    needs: Needs,
    parameters: Parameters,
    observer: Observer | None,
    tell: Tell | None,
) -> Run:
    """The run of `plan`: with tiers beside the device where it has any, undoing stages where it does."""
    make: Callable[..., Run] = Run
    if plan.tiers:
        make = partial(TieredRun, tiers=plan.tiers, most_states=plan.most_states, device=loop.device)
    elif plan.host_tapes is not None:
        room = replace(plan.host_tapes, most=plan.most_archived)
        make = partial(HostTapesRun, host_tapes=room, device=loop.device)
    elif plan.undoes:
        make = UndoingRun
    return make(
        loop.program(plan.segment_steps),
        loop.initial,
        plan.schedule(),
        parameters=parameters,
        replay=loop.replay(needs),
        captured=loop.captured,
        observer=observer,
        outgrowth=_outgrowth(plan, needs, tell),
    )


def _outgrowth(plan: ExecutionPlan, needs: Needs, tell: Tell | None) -> Outgrowth | None:
    """What looks at the tapes of steps that go by values; None of others."""
    if plan.graph_bytes is None or tell is None:
        return None
    return Outgrowth(plan.graph_bytes, tell, sizes_vary=needs.by_values is not ByValues.BRANCHES)


def _differentiable(loop: Loop, parameters: Parameters) -> list[Tensor]:
    """What gets a gradient, in the order in which the function returns them."""
    state = [leaf for leaf in loop.initial if isinstance(leaf, Tensor) and leaf.requires_grad]
    inputs = [loop.inputs.leaves[position] for position in loop.inputs.differentiable]
    return [*state, *inputs, *parameters.real, *loop.captured]


def run_without_gradients(loop: Loop, needs: Needs | None = None) -> tuple[Any, Any]:
    """Run every step once for its outputs only: nothing is kept for a backward. Gradients are enabled for the
    steps only where the caller enabled them and, as is known of their `needs`, steps go by that.
    """
    with_graphs = needs is not None and needs.advances_with_graphs and torch.is_grad_enabled()
    program = loop.program(1 if not loop.is_segment else min(WITHOUT_GRADIENTS_STEPS, loop.inputs.length))
    leaves = loop.initial
    with torch.set_grad_enabled(with_graphs), state_only(False), passing(None):
        for stage in range(1, program.length + 1):
            slices = program.inputs.slices(*program.steps_of(stage))
            leaves = program.run(
                stage,
                leaves,
                slices,
                lambda first, count, block: program.outputs.write(first, count, [block]),
                held=None,
                is_taped=False,
            )
    return program.outputs.result(program.outputs.leaves), loop.structure.unflatten(leaves)


class _Unrolled(torch.autograd.Function):
    """The whole loop as one node of the caller's graph."""

    @staticmethod
    def forward(ctx: Any, run: Run, final: list[Any], final_state: FinalState, *_given: Tensor) -> Any:
        ctx.set_materialize_grads(False)
        with without_callers_hooks(), forward_mode():
            outputs, leaves = run.forward()
        run.program.outputs.leaves = []
        final.extend(leaves)
        ctx.state_positions = [index for index, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        ctx.state_size = len(leaves)
        states = [leaf.detach() for leaf in leaves if isinstance(leaf, Tensor)]
        results = [*outputs, *states]
        fixed = states if final_state == "detached" else []
        ctx.mark_non_differentiable(
            *fixed, *(t for t in results if not (t.is_floating_point() or t.is_complex()))
        )
        ctx.output_count = len(outputs)
        ctx.is_checkpointed = is_checkpointed()
        ctx.run = None if ctx.is_checkpointed else run
        if ctx.is_checkpointed:
            ctx.save_for_backward(carrier_of(run))
        return tuple(results)

    @staticmethod
    @first_order("an unrolled loop")
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        run: Run | None = unloaded(*ctx.saved_tensors) if ctx.is_checkpointed else ctx.run
        if run is None:
            raise DoubleBackward("backward ran already: the tapes of an unrolled loop are used up by it")
        ctx.run = None
        with without_callers_hooks(), forward_mode():
            return _reverse(ctx, run, gradients)


def _reverse(ctx: Any, run: Run, gradients: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    outputs = gradients[: ctx.output_count]
    state: list[Tensor | None] = [None] * ctx.state_size
    for position, gradient in zip(ctx.state_positions, gradients[ctx.output_count :], strict=True):
        state[position] = gradient
    run.backward(outputs, state)
    wanted = [isinstance(leaf, Tensor) and leaf.requires_grad for leaf in run.initial]
    of_state = [g for g, is_wanted in zip(run.gradients.of_state(), wanted, strict=True) if is_wanted]
    return (
        None,
        None,
        None,
        *of_state,
        *run.gradients.of_inputs(),
        *run.parameters.take_gradients(),
        *run.gradients.of_captured(),
    )
