"""Which kernels to use where: all give the same bits, so that any of them may reverse what another did."""

from __future__ import annotations

import functools
import os
import warnings
from importlib.util import find_spec

import torch

from executor.reversible.fixed_point import ONE
from executor.reversible.kernels import Kernels, TorchKernels
from executor.reversible.native import SWITCH, NativeKernels, compiled_library


def kernels_for(device: torch.device, dtype: torch.dtype) -> Kernels:
    """The fastest kernels for tensors on `device` and parameters of `dtype` (float32 or float64)."""
    if device.type == "cuda":
        return _triton_kernels(device) or TorchKernels()
    library = compiled_library() if device.type == "cpu" else None
    return TorchKernels() if library is None else NativeKernels(library, dtype)


@functools.cache
def _triton_kernels(device: torch.device) -> Kernels | None:
    """Kernels that ran once on `device`; None where there is no Triton, or it is switched off or does not
    work, of which a warning tells.
    """
    if find_spec("triton") is None or os.environ.get(SWITCH, "").lower() == "off":
        return None
    try:
        from executor.reversible.triton_kernels import TritonKernels

        kernels = TritonKernels()
        _try(kernels, device)
    except Exception as error:  # compilers, drivers and versions fail in many ways
        warnings.warn(f"Triton's kernels do not run on {device}, torch's do: {error}", stacklevel=2)
        return None
    return kernels


def _try(kernels: Kernels, device: torch.device) -> None:
    """Advance one unit that is 1 by the factor 1/2 and the addend 1. Raises RuntimeError unless it is 3/2."""
    fixed, buffer = torch.tensor([[ONE], [0.0]], dtype=torch.float64, device=device).unbind(0)
    factor, addend, value = torch.tensor([[512.0], [1.0], [0.0]], device=device).unbind(0)
    kernels.advance(fixed, buffer, factor, addend, value)
    if float(value) != 1.5:
        raise RuntimeError(f"1 * 1/2 + 1 was computed to be {float(value)}")
