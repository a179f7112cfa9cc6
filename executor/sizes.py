"""Byte counts: as people write them, and as allocators count them."""

from __future__ import annotations

import re

import torch
from torch import Tensor

CUDA_BLOCK_BYTES = 512
"""CUDA's caching allocator hands out multiples of this."""

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def parse_bytes(value: int | str) -> int:
    """Bytes of 536870912, "512MiB" or "2 GB". Raises ValueError unless the result is positive."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"budget={value!r} must be bytes as an integer or a text like '512MiB'")
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", value)
        unit = _UNITS.get(match.group(2).lower()) if match else None
        if match is None or unit is None:
            raise ValueError(f"budget={value!r} is no byte count: write an integer or a text like '512MiB'")
        value = int(float(match.group(1)) * unit) if "." in match.group(1) else int(match.group(1)) * unit
    if value <= 0:
        raise ValueError(f"budget={value} must be a positive number of bytes")
    return value


def held_bytes(tensor: Tensor) -> int:
    """What the allocator holds for a tensor of this shape: whole blocks on CUDA, its bytes elsewhere."""
    return rounded_bytes(tensor.nbytes, tensor.device)


def rounded_bytes(size_bytes: int, device: torch.device) -> int:
    """`size_bytes` as the allocator of `device` counts them."""
    if device.type != "cuda":
        return size_bytes
    return -(-size_bytes // CUDA_BLOCK_BYTES) * CUDA_BLOCK_BYTES
