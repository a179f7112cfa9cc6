"""The functions of kernels.c, on tensors. See there for what they compute and how numbers are laid out."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import torch

from executor.native.environment import FUSED_KERNELS
from executor.native.native_library import compiled_library, function_of

DTYPES = (torch.float32, torch.float64)
MODES = ("LSTM", "GRU")
_SOURCE = Path(__file__).with_name("kernels.c")
_COUNT, _POINTER = ctypes.c_int64, ctypes.c_void_p
_STRUCT = (_POINTER,)


def _fields(counts: str, pointers: str) -> list[tuple[str, Any]]:
    return [(name, _COUNT) for name in counts.split()] + [(name, _POINTER) for name in pointers.split()]


class Forward(ctypes.Structure):
    """The struct of that name: what a forward pass reads and writes."""

    _fields_ = _fields(
        "threads steps batch columns inputs hidden x_step x_sequence",
        "x w_ih w_hh b_ih b_hh h c h_after c_after scratch gates cells y sizes",
    )


class Backward(ctypes.Structure):
    """The struct of that name: what a backward pass reads and writes."""

    _fields_ = _fields(
        "threads steps batch columns inputs hidden x_step x_sequence dy_step dy_sequence dy_unit",
        "w_ih w_hh x y dy h c dh_after dc_after dh dc scratch gates cells dw_ih dw_hh db_ih db_hh dx sizes",
    )


class Kernels:
    """The kernels for one dtype: functions of a struct's address, by mode."""

    def __init__(self, library: ctypes.CDLL, dtype: torch.dtype) -> None:
        suffix = str(dtype).removeprefix("torch.")
        self.lanes: int = function_of(library, "vector_bytes", (), _COUNT)() // dtype.itemsize
        self.most_threads: int = function_of(library, "most_threads", (), _COUNT)()
        self.forward = {
            mode: function_of(library, f"{mode.lower()}_forward_{suffix}", _STRUCT) for mode in MODES
        }
        self.backward = {
            mode: function_of(library, f"{mode.lower()}_backward_{suffix}", _STRUCT) for mode in MODES
        }

    def columns(self, batch: int) -> int:
        """`batch` sequences and the padding to whole vectors."""
        return -(-batch // self.lanes) * self.lanes


@functools.cache
def kernels_for(dtype: torch.dtype) -> Kernels | None:
    """The kernels for tensors of `dtype` on the CPU; None where there are none."""
    library = compiled_library(_SOURCE, switch=FUSED_KERNELS) if dtype in DTYPES else None
    try:
        return None if library is None else Kernels(library, dtype)
    except AttributeError:  # a compiler that left our functions out
        return None
