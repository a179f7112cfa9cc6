"""The type of what comes in: that of the weights, which only autocast may change it to."""

from __future__ import annotations

import torch
from torch import Tensor

from executor.errors import StateChanged

_CAST = (torch.float16, torch.bfloat16, torch.float32)
"""Types from and to which autocast casts."""


def in_type_of(weight: Tensor, given: Tensor, what: str) -> Tensor:
    """`given` in the type of `weight`, under autocast; elsewhere it has to have it.

    Raises StateChanged, as torch's modules refuse it; `what` names it in the message.
    """
    if given.dtype == weight.dtype:
        return given
    if given.dtype in _CAST and weight.dtype in _CAST and torch.is_autocast_enabled(given.device.type):
        return given.to(weight.dtype)
    other = f", or the layers with .to({given.dtype})" if given.is_floating_point() else ""
    raise StateChanged(
        f"{what} is {given.dtype}, the weights are {weight.dtype}: convert it with .to({weight.dtype}){other}"
    )
