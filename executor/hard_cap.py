"""A hard cap on CUDA: the allocator itself refuses what the budget does not allow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from executor.sizes import parse_budget_bytes


@contextmanager
def hard_cap(budget: int | str, device: torch.device | str = "cuda") -> Iterator[None]:
    """Within the context the process may hold `budget` bytes more on `device` than it holds now.

    The cap is on what the caching allocator reserves, fragments included; whoever exceeds it gets
    torch.OutOfMemoryError. Afterwards the process may use the whole device again.
    """
    chosen = torch.device(device)
    torch.cuda.synchronize(chosen)
    torch.cuda.empty_cache()
    total: int = torch.cuda.get_device_properties(chosen).total_memory
    allowed = torch.cuda.memory_reserved(chosen) + parse_budget_bytes(budget)
    torch.cuda.set_per_process_memory_fraction(min(1.0, allowed / total), chosen)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, chosen)
