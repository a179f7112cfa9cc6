"""How kernels are compiled: without the interpreter lock, cached beside the source, IEEE division.

Where that cannot be written numba takes the user's cache folder, or the one of NUMBA_CACHE_DIR; where there
is none of them, or no space left, every process compiles for itself.

One dispatcher per function: two of them would share a cache entry and each other's options.
Compiling is what a first plan waits for, so nothing is made that nobody calls: no wrapper for C, none
for Python around what only kernels call, and no reference counts where nothing is allocated.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., object])


def kernel(function: Function) -> Function:
    """`function` as a compiled kernel: arrays, scalars and named tuples of them in, scalars out.

    It allocates nothing: arrays that it works in are handed to it.
    """
    return _compiled(function, _nrt=False)


def allocating_kernel(function: Function) -> Function:
    """A kernel that makes arrays of its own. Call it from Python only: callees inherit the option."""
    return _compiled(function, _nrt=True)


def inner_kernel(function: Function) -> Function:
    """A kernel that only kernels call; from Python it cannot be."""
    return _compiled(function, _nrt=False, no_cpython_wrapper=True)


def _compiled(function: Function, **options: bool) -> Function:
    # Numba's annotations do not name the options that leave wrappers and reference counts out.
    compiler = cast("Callable[..., Callable[[Function], Function]]", njit)
    options |= {"nogil": True, "no_cfunc_wrapper": True}
    try:
        compiled = compiler(cache=True, error_model="numpy", **options)(function)
    except RuntimeError:  # a read-only installation of a user without a home
        return compiler(error_model="numpy", **options)(function)
    _keep_if_possible(compiled)
    return compiled


def _keep_if_possible(compiled: Any) -> None:
    """A disk that is full, or a quota that is used up, costs what would be kept and not the plan; nor does
    what is left of a file after a crash: numba lets either fault through to whoever called the kernel.
    """
    cache = getattr(compiled, "_cache", None)  # which numba has no setting for
    if cache is None:  # with NUMBA_DISABLE_JIT set it is the function itself
        return
    load, save = cache.load_overload, cache.save_overload

    def load_overload(signature: object, context: object) -> object:
        try:
            return load(signature, context)
        except Exception:  # half a pickle fails in many ways
            with suppress(OSError):
                cache.flush()
            return None

    def save_overload(signature: object, result: object) -> None:
        with suppress(OSError):
            save(signature, result)

    cache.load_overload, cache.save_overload = load_overload, save_overload
