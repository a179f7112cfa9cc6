"""A model of CUDA's caching allocator on one stream: best fit, the rule by which blocks are cut, counters.

After c10/cuda/CUDACachingAllocator.cpp: `round_size`, `get_allocation_size`, `get_free_block`, `should_split`
and merging of free neighbours. It has no memory, so that a test can watch what a device would count.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from executor.memory import cuda_memory

MIB = 2**20
TOTAL_BYTES = 8_444_182_528
"""Of the device: no power of two, as on real ones."""
COUNTERS = ("allocated_bytes", "requested_bytes", "allocation")


@dataclass(eq=False)
class Block:
    """A piece of a segment, with its neighbours."""

    size: int
    pool: str
    requested: int = 0
    is_free: bool = True
    before: Block | None = None
    after: Block | None = None


class Allocator:
    """Blocks in segments of two pools; `is_expandable` decides how large blocks are cut."""

    def __init__(self, *, is_expandable: bool = False) -> None:
        self.is_expandable = is_expandable
        self._free: list[Block] = []
        pools = ("all", "small_pool", "large_pool")
        self.stats = {
            name: {pool: {"current": 0, "peak": 0} for pool in pools}
            for name in (*COUNTERS, "reserved_bytes")
        }

    def allocate(self, requested: int) -> Block:
        """The smallest free block that is large enough, cut where the rule says so."""
        size = max(1, -(-requested // 512)) * 512
        pool = "small_pool" if size <= MIB else "large_pool"
        fitting = [block for block in self._free if block.pool == pool and block.size >= size]
        block = min(fitting, key=lambda each: each.size) if fitting else self._segment(size, pool)
        self._free.remove(block)
        if self._is_cut(block, size):
            self._cut(block, size)
        block.is_free, block.requested = False, requested
        self._count(block, 1)
        return block

    def free(self, block: Block) -> None:
        """Give a block back; it becomes one with its free neighbours."""
        self._count(block, -1)
        block.is_free = True
        for neighbour in (block.before, block.after):
            if neighbour is not None and neighbour.is_free:
                self._free.remove(neighbour)
                self._merge(block, neighbour)
        self._free.append(block)

    def reset_peaks(self, _device: object = None) -> None:
        """What torch.cuda.reset_peak_memory_stats does."""
        for pools in self.stats.values():
            for counter in pools.values():
                counter["peak"] = counter["current"]

    def _segment(self, size: int, pool: str) -> Block:
        small, rounded = pool == "small_pool", -(-size // (2 * MIB)) * 2 * MIB
        block = Block(2 * MIB if small else 20 * MIB if size < 10 * MIB else rounded, pool)
        self._free.append(block)
        self._add("reserved_bytes", pool, block.size)
        return block

    def _is_cut(self, block: Block, size: int) -> bool:
        rest = block.size - size
        return rest >= 512 if block.pool == "small_pool" or self.is_expandable else rest > MIB

    def _cut(self, block: Block, size: int) -> None:
        rest = Block(block.size - size, block.pool, before=block, after=block.after)
        if block.after is not None:
            block.after.before = rest
        block.size, block.after = size, rest
        self._free.append(rest)

    def _merge(self, block: Block, neighbour: Block) -> None:
        block.size += neighbour.size
        if neighbour is block.before:
            block.before = neighbour.before
            if block.before is not None:
                block.before.after = block
        else:
            block.after = neighbour.after
            if block.after is not None:
                block.after.before = block

    def _count(self, block: Block, sign: int) -> None:
        for name, amount in zip(COUNTERS, (block.size, block.requested, 1), strict=True):
            self._add(name, block.pool, sign * amount)

    def _add(self, name: str, pool: str, amount: int) -> None:
        for each in ("all", pool):
            counter = self.stats[name][each]
            counter["current"] += amount
            counter["peak"] = max(counter["peak"], counter["current"])


def in_the_place_of_cuda(monkeypatch: pytest.MonkeyPatch, allocator: Allocator) -> SimpleNamespace:
    """Let torch.cuda's counters be those of `allocator`; returns what was called: cap fractions by device."""
    called = SimpleNamespace(fractions=[])

    def fraction(share: float, device: Any = None) -> None:
        if torch.device(device).index is None:  # as torch._utils._get_device_index does
            raise ValueError(f"Expected a torch.device with a specified index, but got: {device}")
        called.fractions.append((share, torch.device(device)))

    def last_fraction(device: Any = None) -> float:
        """Of whole bytes, as torch keeps it."""
        shares = [share for share, where in called.fractions if where == torch.device(device)]
        return int(shares[-1] * TOTAL_BYTES) / TOTAL_BYTES if shares else 1.0

    def reserved(moment: str) -> Any:
        return lambda _device=None: allocator.stats["reserved_bytes"]["all"][moment]

    cuda = torch.cuda
    monkeypatch.setattr(cuda, "memory_stats_as_nested_dict", lambda _device=None: allocator.stats)
    monkeypatch.setattr(cuda, "reset_peak_memory_stats", allocator.reset_peaks)
    monkeypatch.setattr(cuda, "synchronize", lambda _device=None: None)
    monkeypatch.setattr(cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(cuda, "current_device", lambda: 3)
    monkeypatch.setattr(cuda, "memory_reserved", reserved("current"))
    monkeypatch.setattr(cuda, "max_memory_reserved", reserved("peak"))
    monkeypatch.setattr(
        cuda, "get_device_properties", lambda _device: SimpleNamespace(total_memory=TOTAL_BYTES)
    )
    monkeypatch.setattr(cuda, "set_per_process_memory_fraction", fraction)
    monkeypatch.setattr(cuda, "get_per_process_memory_fraction", last_fraction)
    monkeypatch.setattr(cuda_memory, "cuts_every_block", lambda: allocator.is_expandable)
    return called
