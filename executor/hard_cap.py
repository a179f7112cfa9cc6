"""A hard cap on CUDA: the allocator itself refuses what the budget does not allow.

The cap is on what the caching allocator reserves from the driver. It reserves segments: 2 MiB for blocks up
to 1 MiB, 20 MiB for blocks up to 10 MiB, larger blocks in multiples of 2 MiB; what lies between blocks of a
segment is reserved too. A plan counts blocks, each rounded up to 512 bytes, so it gets less than the cap.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from executor.sizes import parse_budget_bytes

SEGMENTS_BYTES = 22 * 2**20
"""One begun segment of each of the allocator's two pools of shared segments."""
FRAGMENTS_RATIO = 0.1
"""Set aside for holes between blocks and for the rounding of large ones."""


def plannable_bytes(cap_bytes: int) -> int:
    """The budget to plan for under a cap of `cap_bytes`.

    Raises ValueError for a cap that is too small for the allocator's segments.
    """
    left = int((cap_bytes - SEGMENTS_BYTES) * (1 - FRAGMENTS_RATIO))
    if left <= 0:
        raise ValueError(
            f"cap={cap_bytes} bytes is less than the segments of CUDA's allocator take: give more than "
            f"{SEGMENTS_BYTES}"
        )
    return left


@contextmanager
def hard_cap(budget: int | str, device: torch.device | str = "cuda") -> Iterator[int]:
    """Within the context the process may hold `budget` bytes more on `device` than it holds now; gives
    the bytes to plan for under that cap:

        with hard_cap("2GiB") as budget_bytes:
            loss, _ = unroll(step, state, inputs, module=cell, budget=budget_bytes)

    Whoever exceeds the cap gets torch.OutOfMemoryError. Afterwards the process may use the whole device
    again. Raises ValueError for a budget below the allocator's segments.
    """
    chosen = torch.device(device)
    cap_bytes = parse_budget_bytes(budget)
    planned_bytes = plannable_bytes(cap_bytes)
    torch.cuda.synchronize(chosen)
    torch.cuda.empty_cache()
    total: int = torch.cuda.get_device_properties(chosen).total_memory
    allowed = torch.cuda.memory_reserved(chosen) + cap_bytes
    torch.cuda.set_per_process_memory_fraction(min(1.0, allowed / total), chosen)
    try:
        yield planned_bytes
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, chosen)
