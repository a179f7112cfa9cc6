"""Threads that share a layer's units compute the bits that one computes."""

import os

import pytest
import torch
from torch import nn

from executor.fused import team
from executor.fused.kernels import kernels_for
from executor.fused.layer import run_layer
from executor.fused.team import team_size
from executor.torch_weights import TorchWeights

MODULES = {"LSTM": nn.LSTM, "GRU": nn.GRU}
# [steps, batch, input, hidden]: more and fewer units than threads have, edges of tiles everywhere, one step.
SIZES = [(6, 16, 32, 64), (5, 11, 21, 39), (3, 37, 40, 8), (1, 9, 5, 100)]
ENDING = torch.tensor([9, 9, 4, 4, 1])
"""Sequences that go on, of the second size."""

kernels = kernels_for(torch.float32)
pytestmark = [
    pytest.mark.skipif(
        kernels is None or kernels.most_threads == 1, reason="there is no C compiler with OpenMP"
    ),
    pytest.mark.usefixtures("one_thread"),  # and as many as there were, afterwards
]


@pytest.fixture
def small_shares(monkeypatch):
    """However little there is to do, threads share it."""
    monkeypatch.setattr(team, "_LEAST_PRODUCTS", 1)
    monkeypatch.setattr(team, "_LEAST_UNITS", 1)


def results(mode, dtype, sizes, ending=None):
    """Outputs, state after, and gradients of inputs, state and parameters; float64 and float32 alike."""
    torch.manual_seed(1)
    steps, batch, inputs, hidden = sizes
    module = MODULES[mode](inputs, hidden, dtype=dtype)
    x = torch.randn(steps, batch, inputs, dtype=dtype, requires_grad=True)
    parts = 2 if mode == "LSTM" else 1
    state = tuple(torch.randn(batch, hidden, dtype=dtype, requires_grad=True) for _ in range(parts))
    weights = TorchWeights(*module.parameters())
    y, after = run_layer(kernels_for(dtype), mode, x, state, weights, ending)
    loss = y.sin().sum() + sum(part.cos().sum() for part in after)
    return [y, *after, *torch.autograd.grad(loss, [x, *state, *module.parameters()])]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mode", MODULES)
def test_any_number_of_threads_computes_the_same_bits(mode, dtype, sizes, small_shares):
    alone = results(mode, dtype, sizes)
    for threads in (2, 3, 7):
        torch.set_num_threads(threads)
        assert all(map(torch.equal, results(mode, dtype, sizes), alone))


@pytest.mark.parametrize("mode", MODULES)
def test_so_it_does_where_sequences_end(mode, small_shares):
    alone = results(mode, torch.float32, SIZES[1], ENDING)
    for threads in (2, 5):
        torch.set_num_threads(threads)
        assert all(map(torch.equal, results(mode, torch.float32, SIZES[1], ENDING), alone))


def test_threads_are_as_many_as_torch_may_use_and_have_work_for():
    torch.set_num_threads(4)
    layer = {"batch": 16, "inputs": 256, "rows": 4}
    assert team_size(most=100, hidden=256, **layer) == 4
    assert team_size(most=3, hidden=256, **layer) == 3
    assert team_size(most=100, hidden=256, **{**layer, "batch": 2}) == 2
    assert team_size(most=100, hidden=16, **{**layer, "batch": 1000}) == 2
    assert team_size(most=100, hidden=32, **layer) == 1


def test_a_forked_process_computes_alone(small_shares):
    """The threads of the parent do not exist there: a team would wait for them for ever"""
    torch.set_num_threads(2)
    expected = results("LSTM", torch.float32, SIZES[0])[0].detach()  # the parent has its team now
    process = os.fork()
    if process == 0:
        torch.manual_seed(1)
        with torch.no_grad():
            same = torch.equal(advanced(), expected[-1])
        os._exit(0 if same else 1)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def advanced():
    """The last output of `results`, without a graph."""
    steps, batch, inputs, hidden = SIZES[0]
    module = nn.LSTM(inputs, hidden)
    x = torch.randn(steps, batch, inputs)
    state = tuple(torch.randn(batch, hidden) for _ in range(2))
    y, _ = run_layer(kernels_for(torch.float32), "LSTM", x, state, TorchWeights(*module.parameters()))
    return y[-1]
