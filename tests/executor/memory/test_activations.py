"""The bytes that full BPTT keeps, found from short runs."""

import pytest
import torch
from torch import nn
from torch.autograd.profiler import profile

from executor.memory.activations import activation_bytes


def live_bytes_after(run):
    """Bytes that `run()` left allocated, by the profiler's memory events: the oracle."""
    with profile(profile_memory=True) as profiler:
        kept = run()
    events = profiler.kineto_results.events()
    live = sum(event.nbytes() for event in events if event.name() == "[memory]")
    del kept
    return live


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_extrapolated_bytes_are_what_the_full_run_leaves_allocated(kind, dtype):
    """Two short runs predict the live bytes after the forward pass over 300 steps"""
    module = kind(8, 16, num_layers=2, dtype=dtype)
    x = torch.randn(300, 4, 8, dtype=dtype)
    predicted = activation_bytes(lambda steps: module(x[:steps]), 300, held=[x, *module.parameters()])
    module(x[:5])
    # oneDNN's float32 LSTM rounds each layer's workspace to pages of 4 KiB.
    pages_bytes = 2 * 300 * 64 if kind is nn.LSTM and dtype is torch.float32 else 0
    assert predicted == pytest.approx(live_bytes_after(lambda: module(x)), rel=1e-6, abs=pages_bytes)


def test_a_short_sequence_is_counted_as_it_is():
    """What the caller holds is not counted: tanh of a tensor keeps its result alone"""
    x = torch.randn(10, 4, requires_grad=True)
    assert activation_bytes(lambda steps: x[:steps].tanh(), 10, held=[x]) == 10 * 4 * 4
