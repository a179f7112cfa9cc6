"""Where our kernels are used: on the CPU, for batches that fill vectors."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from executor.fused.kernels import Kernels, kernels_for
from executor.rules.first_order import has_tangents, in_transform

_PLAIN_TYPES = (nn.Parameter, Tensor)


def own_kernels(
    x: Tensor, weights: Iterable[Tensor | None], state: Iterable[Tensor], *, is_packed: bool = False
) -> Kernels | None:
    """The kernels for inputs `x` [.., batch, input], layers of those weights and biases, and that state.

    None where torch's are to be used: other devices and types, mixed ones, weights that are not laid out row
    by row (the kernels are given addresses alone), autocast, transforms of `torch.func` and forward mode,
    batches that would be mostly padding, and several threads where ours can use only one. Packed batches run
    in them even then: in torch's kernels the bytes depend on the lengths, so that all new ones would be
    probed.
    """
    if not x.is_cpu or type(x) is not Tensor or torch.is_autocast_enabled("cpu") or in_transform():
        return None
    weights, state = tuple(weights), tuple(state)
    if not _fit(x.dtype, weights, state) or has_tangents((x, *weights, *state)):
        return None
    kernels = kernels_for(x.dtype)
    if kernels is None or kernels.columns(x.shape[-2]) > 2 * x.shape[-2]:
        return None
    has_threads_to_spare = torch.get_num_threads() > kernels.most_threads
    return None if has_threads_to_spare and not is_packed else kernels


def _fit(kind: torch.dtype, weights: Iterable[Tensor | None], state: Iterable[Tensor]) -> bool:
    """Whether all are of that type and on the CPU, and the weights, and with them sums made like them, row by
    row. Asked at every call: plain loops take half the time of generators.
    """
    for part in state:
        if part.dtype is not kind or not part.is_cpu:
            return False
    for weight in weights:
        if weight is None:
            continue
        if weight.dtype is not kind or not weight.is_cpu or not weight.is_contiguous():
            return False
        if type(weight) not in _PLAIN_TYPES:
            return False
    return True
