"""Whether two runs of a step found the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from executor.trees import is_continuous


def alike(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether two runs found the same tensors, but for rounding: sums of some kernels have no order. Numbers
    that are none agree with themselves.
    """
    pairs = [(a.detach(), b.detach()) for a, b in zip(one, other, strict=False) if isinstance(a, Tensor)]
    return len(one) == len(other) and all(a.shape == b.shape and _is_close(a, b) for a, b in pairs)


def _is_close(one: Tensor, other: Tensor) -> bool:
    if one.numel() == 0:
        return True
    if not is_continuous(one):
        return torch.equal(one, other)
    tolerance = math.sqrt(torch.finfo(one.dtype).eps)
    size = float(torch.nan_to_num(one.abs(), posinf=0.0).max())
    return torch.allclose(one, other, rtol=tolerance, atol=tolerance * size, equal_nan=True)
