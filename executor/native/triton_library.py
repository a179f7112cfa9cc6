"""Triton's programs where they run: on CUDA devices of machines that have Triton, once a trial has succeeded.

No Triton, no matter: who asks for kernels has others for the same work.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import TypeVar

import torch

Kernels = TypeVar("Kernels")


def kernels_that_run(
    tried: Callable[[torch.device], Kernels], device: torch.device, *, switch: str
) -> Kernels | None:
    """What tried(device) returns, which imports, compiles and runs a program once and checks its result.

    None where the device is not CUDA's, there is no Triton, or the environment variable `switch` says "off";
    and where `tried` raises, of which a warning tells: compilers, drivers and versions fail in many ways.
    """
    is_off = os.environ.get(switch, "").lower() == "off"
    if device.type != "cuda" or is_off or find_spec("triton") is None:
        return None
    try:
        return tried(device)
    except Exception as error:
        warnings.warn(f"Triton's kernels do not run on {device}, torch's do: {error}", stacklevel=2)
        return None
