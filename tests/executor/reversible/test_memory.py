"""What an iteration's measured peak grows by, step by step."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from executor.measure import measure  # noqa: E402
from executor.reversible import NFRevGRU, RevGRU, RevLSTM  # noqa: E402

torch.set_num_threads(1)

INPUT, HIDDEN, BATCH = 2, 32, 64
SHORT, LONG = 16, 112


class SquareSum(nn.Module):
    def forward(self, y, targets):
        return (y - targets).square().sum()


def peak_bytes(module, steps):
    x, targets = torch.randn(steps, BATCH, INPUT), torch.zeros(steps, BATCH, HIDDEN)

    def iteration():
        module.reduce(x, targets, SquareSum())[0].backward()

    return measure(iteration, device="cpu").peak_bytes


@pytest.mark.parametrize(("kind", "forget_bits", "least_ratio"), [(RevGRU, 2, 15), (RevLSTM, 3, 10)])
def test_peak_grows_by_a_fraction_of_the_hidden_states(kind, forget_bits, least_ratio):
    """The memory that grows with T, blocks of the archive included."""
    module = kind(INPUT, HIDDEN, forget_bits=forget_bits)
    grown = peak_bytes(module, LONG) - peak_bytes(module, SHORT)
    hidden_states_bytes = 4 * (LONG - SHORT) * BATCH * HIDDEN * len(module.state_names)
    assert 0 <= grown < hidden_states_bytes / least_ratio


def test_peak_of_a_cell_that_never_forgets_grows_by_two_numbers_a_segment():
    """By which the way back tells that the loss is the same."""
    module = NFRevGRU(INPUT, HIDDEN)
    assert peak_bytes(module, 40) == peak_bytes(module, 16) + 16 * (40 - 16) // module.segment_steps
