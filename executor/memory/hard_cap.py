"""A hard cap on CUDA: the allocator itself refuses what the budget does not allow.

The cap is on what the caching allocator reserves from the driver. It reserves segments: 2 MiB for blocks up
to 1 MiB, 20 MiB for blocks up to 10 MiB, larger blocks in multiples of 2 MiB; what lies between blocks of a
segment is reserved too. A plan counts blocks (`executor.memory.cuda_memory`), so it gets less than the cap.
How much less is needed depends on sizes and their order: no share is safe for all, and whoever gets
torch.OutOfMemoryError needs a larger cap. Expandable segments waste the least; processes under a hard cap
should have them (PYTORCH_ALLOC_CONF=expandable_segments:True).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from executor.memory.budget import parse_budget_bytes
from executor.memory.cuda_memory import cuts_every_block, indexed, warm_up, workspaces_ready
from executor.memory.device import free_bytes, most_reserved_bytes

SEGMENTS_BYTES = 22 * 2**20
"""One begun segment of each of the allocator's two pools of shared segments."""
GAPS_RATIO = 0.05
"""Set aside for gaps between blocks, with expandable segments: a pool is one stretch of pages. More than any
loop of `python -m benchmarks.gpu.gaps` needed.
"""
SEPARATE_GAPS_RATIO = 0.1
"""Without: twice what any of them needed. It can be more: two blocks of 7 MiB leave a third of a segment of
20 MiB, and no larger block can use that.
"""
_LEAST_BYTES = 2**10


def gaps_ratio() -> float:
    """The share of a cap that is set aside for what lies between blocks."""
    return GAPS_RATIO if cuts_every_block() else SEPARATE_GAPS_RATIO


def plannable_bytes(cap_bytes: int) -> int:
    """The budget to plan for under a cap of `cap_bytes`.

    Raises ValueError for a cap that is too small for the allocator's segments.
    """
    left = int((cap_bytes - SEGMENTS_BYTES) * (1 - gaps_ratio()))
    if left <= 0:
        raise ValueError(
            f"cap={cap_bytes} bytes is less than the segments of CUDA's allocator take: give more than "
            f"{SEGMENTS_BYTES}"
        )
    return left


def cap_bytes_for(budget_bytes: int) -> int:
    """A cap under which `budget_bytes` can be planned for."""
    return SEGMENTS_BYTES + int(budget_bytes / (1 - gaps_ratio())) + 2


def free_for_plans(device: torch.device) -> int:
    """What a plan may take of the bytes that `device` has left: on CUDA less what lies between blocks, and
    with the matrix library's workspaces in place.
    """
    if device.type != "cuda":
        return free_bytes(device)
    workspaces_ready(device)
    return plannable_bytes(max(free_bytes(device), SEGMENTS_BYTES + _LEAST_BYTES))


@contextmanager
def hard_cap(budget: int | str, device: torch.device | str = "cuda") -> Iterator[int]:
    """Within the context the process may hold `budget` bytes more on `device` than it holds now; gives
    the bytes to plan for under that cap:

        with hard_cap("2GiB") as budget_bytes:
            loss, _ = unroll(step, state, inputs, module=cell, budget=budget_bytes)

    Whoever exceeds the cap gets torch.OutOfMemoryError. A limit that holds already, another cap's or one of
    torch.cuda.set_per_process_memory_fraction, goes on within the context where it is less, and afterwards.
    Raises ValueError for a budget below the allocator's segments, and RuntimeError without CUDA.
    """
    if not torch.cuda.is_available():
        raise RuntimeError(
            "a hard cap is CUDA's allocator's, and there is no CUDA device here; budgets need none"
        )
    chosen = indexed(device)
    cap_bytes = parse_budget_bytes(budget)
    planned_bytes = plannable_bytes(cap_bytes)
    with reserved_at_most(cap_bytes, chosen):
        yield planned_bytes


@contextmanager
def reserved_at_most(added_bytes: int, device: torch.device) -> Iterator[int]:
    """Within the context CUDA's allocator may reserve `added_bytes` more on `device`, which has an index,
    than it holds for what is live now, the matrix library's workspaces included, and no more than before.
    Gives the bytes that were reserved before.
    """
    warm_up(device)
    torch.cuda.empty_cache()
    before_bytes: int = torch.cuda.memory_reserved(device)
    outer_bytes = most_reserved_bytes(device)
    _limit(min(outer_bytes, before_bytes + added_bytes), device)
    try:
        yield before_bytes
    finally:
        _limit(outer_bytes, device)


def _limit(reserved_bytes: int, device: torch.device) -> None:
    """Half a byte more than that: torch multiplies the share by the device's bytes and leaves out what
    follows the point, which would cost one cap in thirty a byte, and with it a segment.
    """
    total_bytes: int = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, (reserved_bytes + 0.5) / total_bytes), device)
