"""native.c, where a C compiler is at hand; without one the same numbers come from torch operations."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from executor.native_library import compiled_library

SWITCH = "SPARSE_NATIVE_KERNELS"
"""Environment variable: "off" keeps to torch's operations."""
_SOURCE = Path(__file__).with_name("native.c")
_TYPES = {torch.float32: "float", torch.float64: "double"}

Fill = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], None]
"""(gates [B, 4H], c before, tanh(c), gradient of h, gradient of c in and out, gate gradient out)."""


def native_fill(like: Tensor) -> Fill | None:
    """The compiled kernel for tensors of the type and device of `like`; None where there is none."""
    if like.device.type != "cpu" or like.dtype not in _TYPES:
        return None
    return _fill(_TYPES[like.dtype])


@cache
def _fill(suffix: str) -> Fill | None:
    library = compiled_library(_SOURCE, switch=SWITCH)
    if library is None:
        return None
    function = getattr(library, f"lstm_fill_{suffix}")
    function.argtypes, function.restype = [ctypes.c_int64] * 2 + [ctypes.c_void_p] * 6, None

    def fill(*tensors: Tensor) -> None:
        batch, units = tensors[1].shape
        held = [tensor.contiguous() for tensor in tensors[:4]]
        function(batch, units, *(tensor.data_ptr() for tensor in (*held, *tensors[4:])))

    return fill
