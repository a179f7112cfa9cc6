"""What scripts ask torch's modules for, beside a call."""

import pytest
import torch
from torch import nn

from executor import GRU, LSTM, RNN


def test_a_drop_in_is_shown_as_the_torch_module_with_its_budget():
    """Two that differ in their directions looked alike"""
    options = {"num_layers": 2, "bias": False, "batch_first": True, "dropout": 0.1, "bidirectional": True}
    for plain in (nn.LSTM(3, 4), nn.LSTM(3, 4, **options), nn.LSTM(3, 4, proj_size=2)):
        assert repr(LSTM.from_torch(plain, budget="1MiB")) == repr(plain)[:-1] + ", budget=1 MiB)"


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_the_nonlinearity_of_an_rnn_is_that_of_the_torch_module(nonlinearity):
    """By which scripts choose how to initialise it"""
    plain = nn.RNN(3, 4, nonlinearity=nonlinearity)
    assert RNN.from_torch(plain, budget="1MiB").nonlinearity == plain.nonlinearity


def test_an_input_that_is_no_tensor_is_refused():
    """In words: numpy's arrays and lists had other attributes than were asked for"""
    drop_in, x = GRU.from_torch(nn.GRU(3, 4), budget="1MiB"), torch.zeros(5, 2, 3)
    for given, kind in (([x], "list"), (x.numpy(), "ndarray")):
        with pytest.raises(TypeError, match=f"the input of a GRU is a {kind}, and must be a tensor or"):
            drop_in(given)
