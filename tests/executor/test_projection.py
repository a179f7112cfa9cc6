"""Any plan's simulated peak is the measured one, whatever the planner would have chosen.

The chain comes from the probe, the peak from the simulator, the measurement from a real run: what is
left between them are the caller's few scalars.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from executor import measure
from executor.drop_ins.recurrence import Recurrence, segment_of
from executor.execute import execute
from executor.loop import Loop
from executor.plan import ExecutionPlan, checkpoint_every, tape_everything
from executor.probe import probe_loop
from planner_service.chain import simulate

torch.set_num_threads(1)
BATCH, SIZE = 4, 24
SCALARS_BYTES = 32


def cell_loop(kind: str, steps: int) -> Loop:
    cell = getattr(nn, f"{kind}Cell")(SIZE, SIZE)

    def step(state: Any, x: Tensor) -> tuple[Any, Tensor]:
        state = cell(x, state)
        return state, state[0] if isinstance(state, tuple) else state

    return Loop.of(step, initial(kind, (BATCH, SIZE)), torch.randn(steps, BATCH, SIZE), module=cell)


def fused_loop(kind: str, steps: int) -> Loop:
    module = getattr(nn, kind)(SIZE, SIZE)

    def segment(state: Any, x: Tensor) -> tuple[Any, Tensor]:
        output, state = module(x, state)
        return state, output

    inputs = torch.randn(steps, BATCH, SIZE)
    return Loop.of(None, initial(kind, (1, BATCH, SIZE)), inputs, module=module, segment=segment)


def own_loop(kind: str, steps: int) -> Loop:
    """Segments in our own kernels, with some padding of the batch."""
    module = getattr(nn, kind)(SIZE, SIZE)
    inputs = torch.randn(steps, 12, SIZE)
    segment = segment_of(module, Recurrence.of(module))
    state = initial(kind, (1, 12, SIZE))
    return Loop.of(None, state if kind == "LSTM" else (state,), inputs, module=module, segment=segment)


def initial(kind: str, shape: tuple[int, ...]) -> Any:
    return (torch.zeros(shape), torch.zeros(shape)) if kind == "LSTM" else torch.zeros(shape)


@pytest.mark.parametrize(
    ("make", "kind", "steps", "segment_steps"),
    [
        (cell_loop, "RNN", 40, 1),
        (cell_loop, "GRU", 43, 5),
        (cell_loop, "LSTM", 40, 1),
        (cell_loop, "LSTM", 47, 20),
        (fused_loop, "RNN", 43, 5),
        (fused_loop, "GRU", 53, 10),
        (fused_loop, "GRU", 77, 50),
        (fused_loop, "LSTM", 53, 10),
        (fused_loop, "LSTM", 60, 20),
        (own_loop, "GRU", 40, 1),
        (own_loop, "GRU", 53, 10),
        (own_loop, "LSTM", 47, 20),
    ],
)
def test_the_simulated_peak_is_the_measured_one(make: Any, kind: str, steps: int, segment_steps: int) -> None:
    """Everything taped, a checkpoint after every segment, after every third: 36 runs."""
    loop = make(kind, steps)
    weights = torch.randn_like(loop.inputs.leaves[0])
    report = probe_loop(loop, candidates=[segment_steps])
    chain = report.chain(steps, segment_steps)
    for plan in (
        tape_everything(steps, segment_steps),
        checkpoint_every(steps, segment_steps, 1),
        checkpoint_every(steps, segment_steps, min(3, chain.length)),
    ):

        def train(plan: Any = plan) -> Any:
            outputs, state = execute(loop, plan, report.needs)
            loss = (outputs * weights).sum()
            for leaf in state if isinstance(state, tuple) else (state,):
                loss = loss + (leaf * leaf).sum()
            loss.backward()
            return outputs, state

        loop.modules[0].zero_grad(set_to_none=True)
        projected = simulate(chain, plan.schedule()).peak_bytes
        assert 0 <= projected - measure(train).peak_bytes <= SCALARS_BYTES, plan.strategy


def delay(state: tuple[Tensor, Tensor, Tensor], x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """A delay line: two of three tensors are the state before."""
    after = torch.tanh(state[0] * state[2] + x)
    return (after, state[0], state[1]), after.square().sum()


def constant(state: tuple[Tensor, Tensor, Tensor], x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """Two of three tensors are handed on, one of them as a view."""
    after = torch.tanh(state[0] * state[1] + x)
    return (after, state[1], state[2][:]), (after * state[2]).sum()


def previous(state: tuple[Tensor, Tensor, Tensor], x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """The input is kept for the next step: a view of all inputs, which are there throughout."""
    after = torch.tanh(state[0] * state[2] + x - state[1])
    return (after, x, after * 2), after.square().sum()


@pytest.mark.parametrize("segment_steps", [1, 5])
@pytest.mark.parametrize("step", [delay, constant, previous])
def test_a_state_that_hands_tensors_on_is_projected_too(step: Any, segment_steps: int) -> None:
    """Tensors of the state before would be kept alive by the state after it, uncounted: they are copied.
    The gradients are those of a plain loop.
    """
    steps = 40
    state = tuple(torch.randn(BATCH, SIZE, requires_grad=True) for _ in range(3))
    x = torch.randn(steps, BATCH, SIZE)
    loop = Loop.of(step, state, x, reduce="sum", final_state="detached")
    needs = loop.needs()
    chain = probe_loop(loop, candidates=[segment_steps]).chain(steps, segment_steps)
    expected = torch.autograd.grad(_plain(step, state, x), state)
    for plan in (tape_everything(steps, segment_steps), checkpoint_every(steps, segment_steps, 3)):

        def run(plan: ExecutionPlan = plan) -> tuple[Tensor, ...]:
            return torch.autograd.grad(execute(loop, plan, needs)[0], state)

        measured = measure(run)
        projected = plan.replayed(chain).peak_bytes
        assert 0.9 * projected <= measured.peak_bytes <= projected
        torch.testing.assert_close(measured.result, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("used", ["loss", "both"])
def test_what_no_gradient_comes_to_frees_what_it_saved(used: str) -> None:
    """A last state that the loss does not depend on is counted as if it did: its part of the graph
    saves a large tensor, and is not reversed.
    """
    state, x = torch.randn(64, 16, requires_grad=True), torch.randn(3, 64, 16)

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        first = (state.unsqueeze(2) * state.unsqueeze(1))[:, 0]  # a view of sixteen times its bytes
        return torch.tanh(first.square() + x), first.mean()

    loop = Loop.of(step, state, x, reduce="sum")
    needs = loop.needs()
    chain = probe_loop(loop, candidates=[1]).chain(3, 1)
    plan = tape_everything(3, 1)

    def run() -> tuple[Tensor, ...]:
        loss, last = execute(loop, plan, needs)
        return torch.autograd.grad(loss if used == "loss" else loss + last.sum(), state)

    assert measure(run).peak_bytes <= plan.replayed(chain).peak_bytes


def _plain(step: Any, state: Any, x: Tensor) -> Tensor:
    total = torch.zeros(())
    for x_t in x:
        state, loss = step(state, x_t)
        total = total + loss
    return total
