"""How kernels are compiled: without the interpreter lock, cached beside the source, IEEE division.

One dispatcher per function: two of them would share a cache entry and each other's options.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., object])


def kernel(function: Function) -> Function:
    """`function` as a compiled kernel: arrays, scalars and named tuples of them in, scalars out."""
    return cast("Function", njit(nogil=True, cache=True, error_model="numpy")(function))
