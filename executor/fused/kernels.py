"""The functions of kernels.c, on tensors. See there for what they compute and how numbers are laid out."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from executor.native_library import compiled_library

SWITCH = "FUSED_NATIVE_KERNELS"
"""Environment variable: "off" keeps to torch's kernels."""
DTYPES = (torch.float32, torch.float64)
_SOURCE = Path(__file__).with_name("kernels.c")
_VECTOR_BYTES = 64
_COUNT, _POINTER = ctypes.c_int64, ctypes.c_void_p


def _fields(counts: str, pointers: str) -> list[tuple[str, Any]]:
    return [(name, _COUNT) for name in counts.split()] + [(name, _POINTER) for name in pointers.split()]


class Forward(ctypes.Structure):
    """The struct of that name: what a forward pass reads and writes."""

    _fields_ = _fields(
        "steps batch columns inputs hidden",
        "x w_ih w_hh b_ih b_hh h c next x_columns gates cells y",
    )


class Backward(ctypes.Structure):
    """The struct of that name: what the recurrent part of a backward pass reads and writes."""

    _fields_ = _fields("steps batch columns hidden", "w_hh y dy first before dh dc gates cells")


class Outer(ctypes.Structure):
    """The struct of that name: the gradient of a weight matrix."""

    _fields_ = _fields("steps batch columns rows width step_stride", "d first values sum")


class Kernels:
    """The kernels for one dtype."""

    def __init__(self, library: ctypes.CDLL, dtype: torch.dtype) -> None:
        suffix = str(dtype).removeprefix("torch.")
        self.lanes = _VECTOR_BYTES // dtype.itemsize
        self.forward = {
            "LSTM": _function(library, f"lstm_forward_{suffix}", _POINTER),
            "GRU": _function(library, f"gru_forward_{suffix}", _POINTER),
        }
        self.backward = {
            "LSTM": _function(library, f"lstm_backward_{suffix}", _POINTER),
            "GRU": _function(library, f"gru_backward_{suffix}", _POINTER),
        }
        moved = (_COUNT, _COUNT, _COUNT, _POINTER, _POINTER)
        self._to_columns = _function(library, f"to_columns_{suffix}", *moved)
        self._from_columns = _function(library, f"from_columns_{suffix}", *moved)
        self.add_outer = _function(library, f"add_outer_{suffix}", _POINTER)
        self.add_rows = _function(library, f"add_rows_{suffix}", *[_COUNT] * 4, _POINTER, _POINTER)
        self.inputs_gradient = _function(library, f"inputs_gradient_{suffix}", *[_COUNT] * 6, *[_POINTER] * 3)

    def columns(self, batch: int) -> int:
        """`batch` sequences and the padding to whole vectors."""
        return -(-batch // self.lanes) * self.lanes

    def to_columns(self, natural: Tensor) -> Tensor:
        """[batch, size] as [size, columns]."""
        batch, size = natural.shape
        natural = natural.contiguous()
        out = natural.new_empty(size, self.columns(batch))
        self._to_columns(batch, size, out.shape[1], natural.data_ptr(), out.data_ptr())
        return out

    def from_columns(self, columns: Tensor, batch: int) -> Tensor:
        """[size, columns] as [batch, size]."""
        out = columns.new_empty(batch, columns.shape[0])
        self._from_columns(batch, columns.shape[0], columns.shape[1], columns.data_ptr(), out.data_ptr())
        return out


def _function(library: ctypes.CDLL, name: str, *arguments: Any) -> Any:
    function = getattr(library, name)
    function.argtypes, function.restype = arguments, None
    return function


@functools.cache
def kernels_for(dtype: torch.dtype) -> Kernels | None:
    """The kernels for tensors of `dtype` on the CPU; None where there are none."""
    library = compiled_library(_SOURCE, switch=SWITCH) if dtype in DTYPES else None
    return None if library is None else Kernels(library, dtype)
