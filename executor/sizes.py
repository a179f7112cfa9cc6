"""Byte counts: as people write them, and as allocators count them."""

from __future__ import annotations

from collections.abc import Iterable
from operator import index
from typing import Any

import torch
from torch import Tensor

from executor.cuda_memory import most_block_bytes
from planner_service.chain.quantities import InvalidQuantity, parse_bytes


def parse_budget_bytes(budget: int | str, *, name: str = "budget") -> int:
    """Bytes of 536870912, "512MiB" or "2 GB". Raises ValueError, which calls it by `name`, unless they are a
    positive number.
    """
    try:
        given: Any = budget
        if not isinstance(given, int | float | str):  # numpy's whole numbers are no ints
            given = index(given)
        budget_bytes = parse_bytes(given)
    except InvalidQuantity as refusal:
        raise ValueError(f"{name}={budget!r}: {refusal.reason}{_of_others(budget)}") from None
    except TypeError:
        raise ValueError(f"{name}={budget!r}: write a number of bytes") from None
    if budget_bytes == 0:
        raise ValueError(f"{name}={budget!r} must be positive")
    return budget_bytes


def _of_others(budget: object) -> str:
    """What is said of budgets that only some calls take."""
    if isinstance(budget, str) and (budget.strip().endswith("%") or budget.strip() == "free"):
        return (
            '; shares of full BPTT and "free" are for LSTM, GRU and RNN of this package and for jobs '
            "(predict(...).full_bptt_peak_bytes tells what a share of is)"
        )
    return ""


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


def rounded_bytes(size_bytes: int, device: torch.device) -> int:
    """`size_bytes` as the allocator of `device` counts them, at most."""
    return most_block_bytes(size_bytes) if device.type == "cuda" else size_bytes
