"""The weights of recurrent layers as torch lays them out, for what computes the same as torch's modules."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class TorchWeights(NamedTuple):
    """Weights of one layer and direction, or their gradients, in torch's order; G gates of H units each: 4 of
    an LSTM, 3 of a GRU.
    """

    weight_ih: Tensor
    """[G*H, input]"""
    weight_hh: Tensor
    """[G*H, H]"""
    bias_ih: Tensor | None = None
    """[G*H]"""
    bias_hh: Tensor | None = None
    """[G*H]"""
