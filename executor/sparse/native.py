"""native.c, where a C compiler is at hand; without one torch operations do the same.

A step back has the same bits either way; a step forward the same up to rounding.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from executor.native.environment import SPARSE_KERNELS
from executor.native.native_library import compiled_library
from executor.sparse.repeated import LEAST_STEPS

_SOURCE = Path(__file__).with_name("native.c")
_TYPES = {torch.float32: "float", torch.float64: "double"}

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], None]


def native_fill(like: Tensor) -> Kernel | None:
    """A step back, for tensors like `like`; None where there is none.

    It takes the gates [B, 4H], c before, tanh(c), the gradient of h, that of c (in and out), and writes the
    gate gradient [B, 4H].
    """
    if like.device.type != "cpu" or like.dtype not in _TYPES:
        return None
    return _kernel(f"lstm_fill_{_TYPES[like.dtype]}", (4, 1, 1, 1, 1, 4), 4)


def native_advance(like: Tensor, *, steps: int) -> Kernel | None:
    """A step forward: (U h + b [B, 4H], c before, gates [B, 4H] in and out, c after, tanh(c), h). Only for
    float32 and segments of LEAST_STEPS steps, whose last bits are not those of single steps anyway.
    """
    if steps < LEAST_STEPS or like.device.type != "cpu" or like.dtype != torch.float32:
        return None
    return _kernel("lstm_advance_float", (4, 1, 4, 1, 1, 1), 2)


@cache
def _kernel(name: str, widths: tuple[int, ...], read_only: int) -> Kernel | None:
    """The function of that name; its tensors are [B, width * H]. The first `read_only` of them may be copied
    to be contiguous.
    """
    library = compiled_library(_SOURCE, switch=SPARSE_KERNELS)
    function = getattr(library, name, None)  # None too where CC made a library of something else
    if function is None:
        return None
    function.argtypes, function.restype = [ctypes.c_int64] * 2 + [ctypes.c_void_p] * 6, None

    def call(*tensors: Tensor) -> None:
        batch, units = tensors[1].shape
        size = batch * units
        if [tensor.numel() for tensor in tensors] != [width * size for width in widths]:
            raise ValueError(f"{name}: tensors of {[list(tensor.shape) for tensor in tensors]} do not fit")
        held = [*(tensor.contiguous() for tensor in tensors[:read_only]), *tensors[read_only:]]
        function(batch, units, *(tensor.data_ptr() for tensor in held))

    return call
