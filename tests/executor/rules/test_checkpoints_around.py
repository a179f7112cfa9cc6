"""Hooks on saved tensors around a loop, and torch.utils.checkpoint, which is made of them"""

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from executor import measure, unroll
from executor.measure import measure_timeline
from executor.rules import saved_tensor_hooks

BUDGET_BYTES = 250 * 1024

pytestmark = pytest.mark.skipif(
    saved_tensor_hooks._top_hooks is None, reason="this torch does not say which hooks are set"
)


@pytest.fixture(scope="module")
def total():
    """A loop of 100 steps within the budget, and an operation that saves what it gives."""
    torch.manual_seed(0)
    cell, x = nn.GRUCell(2, 16), torch.randn(100, 8, 2)

    def step(h, x_t):
        h = cell(x_t, h)
        return h, h.square().mean()

    def run():
        total, _ = unroll(
            step,
            x.new_zeros(8, 16),
            x,
            module=cell,
            reduce="sum",
            budget=BUDGET_BYTES,
            final_state="detached",
        )
        return total.tanh()

    run.cell = cell
    run().backward()
    return run


def measured(total, forward):
    """Peak bytes of an iteration, and the gradients."""
    total.cell.zero_grad()
    peak_bytes = measure(lambda: forward(total).backward(), device="cpu").peak_bytes
    return peak_bytes, [parameter.grad for parameter in total.cell.parameters()]


def copying(function):
    """Saved tensors are copied."""
    with saved_tensors_hooks(torch.clone, lambda tensor: tensor):
        return function()


def checkpointed(function, **options):
    """Saved tensors are made again."""
    return checkpoint(function, use_reentrant=False, preserve_rng_state=False, **options)


@pytest.mark.parametrize("around", [copying, checkpointed])
def test_hooks_around_a_loop_leave_its_tapes_alone(total, around):
    """Copies of tapes took 2.7 times the budget, the second pass of a checkpoint four times"""
    peak_bytes, gradients = measured(total, around)
    assert peak_bytes <= BUDGET_BYTES
    torch.testing.assert_close(gradients, measured(total, lambda run: run())[1], rtol=1e-5, atol=1e-7)


def test_a_checkpointed_loop_holds_nothing_until_its_backward_pass(total):
    """Its run is made again with everything else, as often as it is asked for"""
    total.cell.zero_grad()
    held = measure_timeline(lambda: checkpointed(total))
    assert held.points[-1].live_bytes == 4
    held.result.backward(retain_graph=True)
    once = [parameter.grad.clone() for parameter in total.cell.parameters()]
    total.cell.zero_grad()
    held.result.backward()
    assert all(torch.equal(a, b.grad) for a, b in zip(once, total.cell.parameters(), strict=True))


def test_gradients_may_be_taken_inside_a_checkpoint(total):
    """A loop that is differentiated in the checkpointed function, whose gradient matters in both passes"""
    scale = torch.ones((), requires_grad=True)

    def penalised():
        gradient, *_ = torch.autograd.grad(total(), list(total.cell.parameters()))
        return (gradient.square().sum() * scale).tanh()

    found = [torch.autograd.grad(around(penalised), scale)[0] for around in (checkpointed, lambda f: f())]
    torch.testing.assert_close(*found)
