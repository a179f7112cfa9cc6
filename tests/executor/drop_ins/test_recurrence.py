"""Segments of recurrent modules compute what the modules compute."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from executor.drop_ins.recurrence import FUSED_SEGMENT_STEPS, Recurrence, _is_for_cells, run_segment

MODULES = {
    "lstm": lambda **options: nn.LSTM(3, 4, **options),
    "lstm-projected": lambda **options: nn.LSTM(3, 4, proj_size=2, **options),
    "gru": lambda **options: nn.GRU(3, 4, **options),
    "rnn-tanh": lambda **options: nn.RNN(3, 4, **options),
    "rnn-relu": lambda **options: nn.RNN(3, 4, nonlinearity="relu", **options),
}


@pytest.mark.parametrize("segment_steps", [1, 3, FUSED_SEGMENT_STEPS, 11])
@pytest.mark.parametrize(("layers", "bias"), [(1, True), (1, False), (2, True), (2, False)])
@pytest.mark.parametrize("name", MODULES)
def test_segments_in_a_row_equal_the_module(name, layers, bias, segment_steps):
    """Outputs and final state of consecutive segments, cells or fused, are those of one call"""
    module = MODULES[name](num_layers=layers, bias=bias).double()
    x = torch.randn(11, 2, 3, dtype=torch.float64)
    expected, final = module(x)
    recurrence = Recurrence.of(module)
    state = recurrence.initial_state(x, batch_size=2)
    outputs = []
    for part in x.split(segment_steps):
        state, y = run_segment(module, recurrence, state, part)
        outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs), expected, rtol=1e-13, atol=1e-15)
    for mine, theirs in zip(state, final if isinstance(final, tuple) else (final,), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("steps", [2, FUSED_SEGMENT_STEPS])
def test_dropout_acts_between_the_layers_in_training_only(steps):
    """In training both implementations drop outputs of the lower layer, in evaluation none"""
    module = nn.GRU(3, 4, num_layers=2, dropout=0.5)
    recurrence = Recurrence.of(module)
    x = torch.randn(steps, 2, 3)
    state = recurrence.initial_state(x, batch_size=2)

    def output():
        return run_segment(module, recurrence, state, x)[1]

    assert not torch.equal(output(), output())
    module.eval()
    torch.testing.assert_close(output(), module(x)[0])


@pytest.mark.parametrize(
    ("is_cuda", "steps", "is_for_cells"),
    [(False, 1, True), (False, FUSED_SEGMENT_STEPS, False), (True, 1, False), (True, 9, False)],
)
def test_on_cuda_the_fused_kernels_run_segments_of_any_length(is_cuda, steps, is_for_cells):
    """Cells would compute with other products: the numbers should not depend on the plan"""
    recurrence = Recurrence.of(nn.LSTM(3, 4))
    given = SimpleNamespace(is_cuda=is_cuda, shape=(steps, 2, 3))
    assert _is_for_cells(recurrence, given) is is_for_cells
    assert not _is_for_cells(Recurrence.of(nn.LSTM(3, 4, proj_size=2)), given)
