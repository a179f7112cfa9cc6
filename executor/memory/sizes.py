"""Byte counts as allocators make them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from executor.memory.cuda_memory import most_block_bytes


def held_bytes(tensor: Tensor) -> int:
    """What the allocator holds for a tensor of this shape, at most: on CUDA whole blocks, else its bytes."""
    return rounded_bytes(tensor.nbytes, tensor.device)


def storage_bytes(tensors: Iterable[Any], *, besides: Iterable[Any] = ()) -> int:
    """What the allocator holds for the storages of `tensors`, those of `besides` left out. cuDNN makes the
    gradients of a module's parameters as views of one. What is no tensor counts nothing.
    """
    excluded = {each.untyped_storage().data_ptr() for each in besides if isinstance(each, Tensor)}
    storages = {
        storage.data_ptr(): rounded_bytes(storage.nbytes(), storage.device)
        for storage in (each.untyped_storage() for each in tensors if isinstance(each, Tensor))
    }
    return sum(size for address, size in storages.items() if address not in excluded)


def storage_addresses(tensors: Iterable[Any]) -> frozenset[int]:
    """Where the storages of the tensors among `tensors` are; sparse ones, and those that wrap others, such as
    quantized weights, have none of their own.
    """
    strided = (each for each in tensors if isinstance(each, Tensor) and each.layout is torch.strided)
    return frozenset(address for each in strided if (address := storage_address(each)) is not None)


def storage_address(tensor: Tensor) -> int | None:
    """Where the storage of a tensor is; None for one that wraps other tensors."""
    try:
        return tensor.untyped_storage().data_ptr()
    except RuntimeError:
        return None


def rounded_bytes(size_bytes: int, device: torch.device) -> int:
    """`size_bytes` as the allocator of `device` counts them, at most."""
    return most_block_bytes(size_bytes) if device.type == "cuda" else size_bytes
