"""What torch itself can do under autocast on this processor."""

from __future__ import annotations

import pytest
import torch
from torch import nn


def autocast_runs_lstm() -> bool:
    """False on processors without AVX-512: torch asks oneDNN for an LSTM in bfloat16 that it has not there"""
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        try:
            nn.LSTM(1, 1)(torch.zeros(1, 1, 1))
        except RuntimeError as error:
            if "could not create a primitive descriptor" not in str(error):
                raise
            return False
    return True


with_lstm_in_autocast = pytest.mark.skipif(
    not autocast_runs_lstm(), reason="torch's own LSTM does not run under autocast on this processor"
)
