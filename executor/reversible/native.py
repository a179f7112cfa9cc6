"""The kernels compiled from native.c with whatever C compiler the machine has; a fraction of a second.

No compiler, no matter: the torch kernels give the same results to the bit (see choice.py).
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from executor.native import native_library
from executor.native.environment import REVERSIBLE_KERNELS
from executor.native.native_library import function_of
from executor.reversible.archive import Archive

SOURCE = Path(__file__).with_name("native.c")
_POINTER, _COUNT = ctypes.c_void_p, ctypes.c_int64
_UPDATE = (_COUNT, *[_POINTER] * 5)


class NativeKernels:
    """The kernels of native.c; CPU tensors, parameters in float32 or float64."""

    def __init__(self, library: ctypes.CDLL, dtype: torch.dtype) -> None:
        suffix = str(dtype).removeprefix("torch.")
        self._advance = function_of(library, f"advance_{suffix}", _UPDATE)
        self._reverse = function_of(library, f"reverse_{suffix}", _UPDATE)
        gate = (_COUNT, _POINTER, _POINTER, ctypes.c_double, _POINTER)
        self._move_full = function_of(library, f"move_full_{suffix}", gate, _COUNT)
        self._count_below = function_of(library, "count_below", (_COUNT, _POINTER, ctypes.c_double), _COUNT)
        self._refill = function_of(library, "refill", (_COUNT, _POINTER, ctypes.c_double, _POINTER))
        self._words = torch.empty(0, dtype=torch.int16, device="cpu")

    def advance(self, fixed: Tensor, buffer: Tensor, factor: Tensor, addend: Tensor, value: Tensor) -> None:
        """See Kernels."""
        _update(self._advance, fixed, buffer, factor, addend, value)

    def reverse(self, fixed: Tensor, buffer: Tensor, factor: Tensor, addend: Tensor, value: Tensor) -> None:
        """See Kernels."""
        _update(self._reverse, fixed, buffer, factor, addend, value)

    def move_full(self, buffer: Tensor, factor: Tensor, gate: float, archive: Archive) -> None:
        """See Kernels."""
        count, factor = buffer.numel(), factor.contiguous()
        if self._words.numel() < count:
            self._words = torch.empty(count, dtype=torch.int16, device="cpu")
        moved = self._move_full(count, buffer.data_ptr(), factor.data_ptr(), gate, self._words.data_ptr())
        archive.push(self._words[:moved])

    def refill(self, buffer: Tensor, floor: float, archive: Archive) -> None:
        """See Kernels."""
        count = buffer.numel()
        words = archive.pop(self._count_below(count, buffer.data_ptr(), floor))
        self._refill(count, buffer.data_ptr(), floor, words.data_ptr())


def _update(
    kernel: Any, fixed: Tensor, buffer: Tensor, factor: Tensor, addend: Tensor, value: Tensor
) -> None:
    factor, addend = factor.contiguous(), addend.contiguous()  # copies, which must outlive the call
    pointers = [tensor.data_ptr() for tensor in (fixed, buffer, factor, addend, value)]
    kernel(fixed.numel(), *pointers)


def compiled_library() -> ctypes.CDLL | None:
    """native.c compiled and loaded, or None where that cannot be done or is switched off."""
    return native_library.compiled_library(SOURCE, switch=REVERSIBLE_KERNELS)
