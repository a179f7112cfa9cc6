"""Where our kernels are the ones to use: on the CPU, with one thread, for batches that fill vectors."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from executor.fused.kernels import Kernels, kernels_for


def own_kernels(x: Tensor, weights: Iterable[Tensor | None], state: Iterable[Tensor]) -> Kernels | None:
    """The kernels for inputs `x` [.., batch, input], layers of those weights and biases, and that state.

    None where torch's are to be used: other devices and types, mixed ones, weights that are not laid out row
    by row (the kernels are given addresses alone), autocast, batches that would be mostly padding, and
    several threads, of which our kernels would use one.
    """
    if not x.is_cpu or torch.get_num_threads() > 1:
        return None
    if type(x) is not Tensor or torch.is_autocast_enabled("cpu"):
        return None
    kind = x.dtype
    if any(part.dtype is not kind or not part.is_cpu for part in state):
        return None
    if not all(weight is None or _is_plain(weight, kind) for weight in weights):
        return None
    kernels = kernels_for(kind)
    is_mostly_padding = kernels is not None and kernels.columns(x.shape[-2]) > 2 * x.shape[-2]
    return None if is_mostly_padding else kernels


def _is_plain(weight: Tensor, kind: torch.dtype) -> bool:
    """Whether a weight's numbers lie on the CPU in torch's order, and so do those of a sum made like it."""
    is_plain_type = type(weight) in (nn.Parameter, Tensor)
    return is_plain_type and weight.dtype is kind and weight.is_cpu and weight.is_contiguous()
