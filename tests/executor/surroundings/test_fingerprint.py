"""What steps should leave alone: buffers that others put copies of in their place are the same buffers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from executor import unroll
from executor.plan import checkpoint_every
from executor.surroundings.buffers import Buffers, untouched
from executor.surroundings.fingerprint import Fingerprint, is_copy

STEPS = 8


def test_a_buffer_that_is_written_or_replaced_by_another_is_not_the_same() -> None:
    buffer = torch.ones(3)
    before = Fingerprint.of((), [buffer])
    assert Fingerprint.of((), [buffer]).has_buffers_of(before)
    assert Fingerprint.of((), [buffer.clone()]).has_buffers_of(before)
    for other in (buffer * 2, buffer.double(), buffer[:2], None):
        assert not is_copy(other, buffer)
    buffer.mul_(1)
    assert not Fingerprint.of((), [buffer]).has_buffers_of(before)


@pytest.mark.parametrize(("begins", "ends"), [(3, STEPS + 2), (3, None), (None, STEPS + 2)])
def test_another_thread_may_probe_a_loop_with_the_same_frozen_module(
    begins: int | None, ends: int | None
) -> None:
    """From the call of the step that `begins`, else between the passes, to the one at which it `ends`, else
    until after both: the step was refused, or the module had the probe's copy for a buffer from then on.
    """
    linear, norm = nn.Linear(6, 6), nn.BatchNorm1d(6).eval().requires_grad_(False)
    mean, calls = norm.running_mean, [0]
    probing = untouched(Buffers([norm]), ())

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        calls[0] += 1
        if calls[0] == begins:
            probing.__enter__()
        if calls[0] == ends:
            probing.__exit__(None, None, None)
        state = torch.tanh(linear(norm(state)) + x)
        return state, state.square().mean()

    def loss() -> Tensor:
        inputs, plan = torch.ones(STEPS, 4, 6), checkpoint_every(STEPS, 1, 2)
        return unroll(step, torch.zeros(4, 6), inputs, module=linear, reduce="sum", plan=plan)[0]

    calls[0] = -(10**6)
    expected = torch.autograd.grad(loss(), linear.weight)
    calls[0] = 0
    found = loss()
    if begins is None:
        probing.__enter__()
    assert torch.equal(*torch.autograd.grad(found, linear.weight), *expected)
    if ends is None:
        probing.__exit__(None, None, None)
    assert norm.running_mean is mean
