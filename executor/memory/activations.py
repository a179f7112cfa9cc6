"""How many bytes full BPTT keeps between its forward and its backward pass, without running it in full.

What autograd saves for an unrolled model grows by the same bytes with every step, so two short runs
give the figure for any length. (oneDNN rounds a layer's workspace to pages of 4 KiB, which two runs
cannot see: up to 64 bytes per step and layer.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils import _pytree as pytree

SHORT_STEPS = (64, 128)
"""Lengths of the two short runs: long enough for the paths that the kernels take at full length."""


def activation_bytes(run: Callable[[int], Any], length: int, *, held: Iterable[Tensor]) -> int:
    """Bytes kept by full BPTT over `length` steps; `run(steps)` is its forward pass over the first steps.

    `held` are the tensors that the caller holds anyway (parameters, inputs, initial state): not counted.
    """
    excluded = {_key(tensor) for tensor in held}
    short, longer = SHORT_STEPS
    if length <= longer:
        return _kept_bytes(run, length, excluded)
    at_short, at_longer = _kept_bytes(run, short, excluded), _kept_bytes(run, longer, excluded)
    return at_short + (length - short) * (at_longer - at_short) // (longer - short)


def _kept_bytes(run: Callable[[int], Any], steps: int, excluded: set[int]) -> int:
    storages: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storages[_key(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.enable_grad(), saved_tensors_hooks(count, lambda tensor: tensor):
        outputs = run(steps)
    for leaf in pytree.tree_leaves(outputs):
        if isinstance(leaf, Tensor):
            count(leaf)
    return sum(size for key, size in storages.items() if key not in excluded)


def _key(tensor: Tensor) -> int:
    key: int = tensor.untyped_storage()._cdata  # noqa: SLF001 - the storage's identity while it lives
    return key
