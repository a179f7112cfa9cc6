"""Where our kernels are the ones to use: on the CPU, for batches that fill vectors, with few threads."""

from __future__ import annotations

import torch
from torch import Tensor

from executor.fused.kernels import Kernels, kernels_for

OWN_KERNEL_THREADS = 2
"""Most threads of torch's with which our kernels, which use one, are the faster ones."""


def own_kernels(x: Tensor, weight: Tensor) -> Kernels | None:
    """The kernels for inputs `x` [.., batch, input] and a layer of that weight; None where torch's are to be
    used: other devices and types, autocast, batches that would be mostly padding, many threads.
    """
    if x.device.type != "cpu" or torch.get_num_threads() > OWN_KERNEL_THREADS:
        return None
    if type(x) is not Tensor or weight.dtype != x.dtype or torch.is_autocast_enabled("cpu"):
        return None
    kernels = kernels_for(x.dtype)
    is_mostly_padding = kernels is not None and kernels.columns(x.shape[-2]) > 2 * x.shape[-2]
    return None if is_mostly_padding else kernels
