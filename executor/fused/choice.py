"""Where our kernels are the ones to use: on the CPU, with one thread, for batches that fill vectors."""

from __future__ import annotations

import torch
from torch import Tensor

from executor.fused.kernels import Kernels, kernels_for


def own_kernels(x: Tensor, weight: Tensor) -> Kernels | None:
    """The kernels for inputs `x` [.., batch, input] and a layer of that weight; None where torch's are to be
    used: other devices and types, autocast, batches that would be mostly padding, and several threads, of
    which our kernels would use one.
    """
    if x.device.type != "cpu" or torch.get_num_threads() > 1:
        return None
    if type(x) is not Tensor or weight.dtype != x.dtype or torch.is_autocast_enabled("cpu"):
        return None
    kernels = kernels_for(x.dtype)
    is_mostly_padding = kernels is not None and kernels.columns(x.shape[-2]) > 2 * x.shape[-2]
    return None if is_mostly_padding else kernels
