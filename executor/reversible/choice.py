"""Which kernels to use where: all give the same bits, so that any of them may reverse what another did."""

from __future__ import annotations

import functools

import torch

from executor.native.environment import REVERSIBLE_KERNELS
from executor.native.triton_library import kernels_that_run
from executor.reversible.fixed_point import ONE
from executor.reversible.kernels import Kernels, TorchKernels
from executor.reversible.native import NativeKernels, compiled_library


def kernels_for(device: torch.device, dtype: torch.dtype) -> Kernels:
    """The fastest kernels for tensors on `device` and parameters of `dtype` (float32 or float64)."""
    if device.type == "cuda":
        return _triton_kernels(device) or TorchKernels()
    library = compiled_library() if device.type == "cpu" else None
    if library is None:
        return TorchKernels()
    try:
        return NativeKernels(library, dtype)
    except AttributeError:  # CC made a library of something else
        return TorchKernels()


@functools.cache
def _triton_kernels(device: torch.device) -> Kernels | None:
    return kernels_that_run(tried, device, switch=REVERSIBLE_KERNELS)


def tried(device: torch.device) -> Kernels:
    """Triton's kernels, after they took a unit that is 1 by the factor 1/2 and the addend 1.

    Raises RuntimeError unless that gave 3/2.
    """
    from executor.reversible.triton_kernels import TritonKernels

    kernels = TritonKernels()
    fixed, buffer = torch.tensor([[ONE], [0.0]], dtype=torch.float64, device=device).unbind(0)
    factor, addend, value = torch.tensor([[512.0], [1.0], [0.0]], device=device).unbind(0)
    kernels.advance(fixed, buffer, factor, addend, value)
    if float(value) != 1.5:
        raise RuntimeError(f"1 * 1/2 + 1 was computed to be {float(value)}")
    return kernels
