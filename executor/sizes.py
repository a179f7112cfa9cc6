"""Byte counts: as people write them, and as allocators count them."""

from __future__ import annotations

import torch
from torch import Tensor

from planner_service.chain.quantities import InvalidQuantity, parse_bytes

CUDA_BLOCK_BYTES = 512
"""CUDA's caching allocator hands out multiples of this."""


def parse_budget_bytes(budget: int | str) -> int:
    """Bytes of 536870912, "512MiB" or "2 GB". Raises ValueError unless they are a positive number."""
    try:
        budget_bytes = parse_bytes(budget)
    except InvalidQuantity as refusal:
        raise ValueError(f"budget={budget!r}: {refusal.reason}") from None
    if budget_bytes == 0:
        raise ValueError(f"budget={budget!r} must be positive")
    return budget_bytes


def held_bytes(tensor: Tensor) -> int:
    """What the allocator holds for a tensor of this shape: whole blocks on CUDA, its bytes elsewhere."""
    return rounded_bytes(tensor.nbytes, tensor.device)


def rounded_bytes(size_bytes: int, device: torch.device) -> int:
    """`size_bytes` as the allocator of `device` counts them."""
    if device.type != "cuda":
        return size_bytes
    return -(-size_bytes // CUDA_BLOCK_BYTES) * CUDA_BLOCK_BYTES
