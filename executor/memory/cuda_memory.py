"""CUDA's caching allocator: how it rounds what tensors ask for, and what its counters say.

It hands out multiples of 512 bytes. A block of up to 1 MiB is cut to that. Of a larger one it leaves up to
1 MiB on, if the piece of memory that it found has so much left over: which piece it finds depends on all that
was allocated before. With expandable segments every block is cut to size. What is planned and promised is
therefore the *most* that the allocator may count for a tensor; it is exact with expandable segments.

The settings `roundup_power2_divisions` and `max_split_size_mb` round further and are not counted.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import torch
from torch.autograd import backward

from executor.memory.collector import nothing_collected

BLOCK_BYTES = 512
"""The allocator hands out multiples of this."""
LARGEST_SMALL_BYTES = 2**20
"""Blocks up to this come from segments of 2 MiB and are cut to size."""
UNCUT_BYTES = 2**20
"""A larger block is not cut where no more than this would be left of it."""
_LARGE_ROUNDING_BYTES = BLOCK_BYTES - 1 + UNCUT_BYTES


class Reading(NamedTuple):
    """Bytes now, and at most since the counters were last reset."""

    now_bytes: int
    peak_bytes: int


@cache
def cuts_every_block() -> bool:
    """Whether expandable segments are on, by which every block is cut to size. Asked once in a process."""
    if not torch.cuda.is_available():
        return False
    torch.cuda.init()  # type: ignore[no-untyped-call]
    settings: Mapping[str, Any] = torch.cuda.memory._snapshot().get("allocator_settings", {})  # noqa: SLF001
    return bool(settings.get("expandable_segments", False))


def most_block_bytes(size_bytes: int) -> int:
    """The most that the allocator counts for a tensor of `size_bytes`."""
    whole = -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES
    if size_bytes <= LARGEST_SMALL_BYTES or cuts_every_block():
        return whole
    return size_bytes + _LARGE_ROUNDING_BYTES


def most_held(device: torch.device) -> Reading:
    """What live tensors can take at most, each counted by `most_block_bytes`.

    The peak is that of small blocks, of large ones and of their number, added up: at least the true one.
    """
    stats = torch.cuda.memory_stats_as_nested_dict(device)
    return Reading(_most_held(stats, "current"), _most_held(stats, "peak"))


def _most_held(stats: Mapping[str, Any], moment: str) -> int:
    if not stats:  # CUDA was not used yet
        return 0
    if cuts_every_block():
        return int(stats["allocated_bytes"]["all"][moment])
    small_bytes = stats["allocated_bytes"]["small_pool"][moment]
    large_bytes = stats["requested_bytes"]["large_pool"][moment]
    return int(small_bytes + large_bytes + stats["allocation"]["large_pool"][moment] * _LARGE_ROUNDING_BYTES)


class Peaks(NamedTuple):
    """Bytes of live tensors, counted in two ways."""

    handed_out_bytes: int
    """Blocks, as the allocator handed them out."""
    requested_bytes: int
    """What the tensors asked for: the same whatever was allocated before."""

    @classmethod
    def read(cls, device: torch.device, moment: str) -> Peaks:
        """By the allocator's counters; `moment` is `current` or `peak`."""
        stats = torch.cuda.memory_stats_as_nested_dict(device)
        if not stats:
            return cls(0, 0)
        return cls(stats["allocated_bytes"]["all"][moment], stats["requested_bytes"]["all"][moment])


@dataclass
class Counter:
    """What was added while it was open, whoever else reset the allocator's peaks in the meantime."""

    device: torch.device
    before: Peaks
    added: Peaks = field(default_factory=lambda: Peaks(0, 0))
    """The peaks, beyond `before`."""
    is_hidden: bool = False
    """Whether nothing counts at the moment."""

    def fold(self) -> None:
        """Take in the allocator's peaks since they were last reset."""
        peaks = Peaks.read(self.device, "peak")
        self.added = Peaks(
            *(max(old, peak - base) for old, peak, base in zip(self.added, peaks, self.before, strict=True))
        )


_open: list[Counter] = []
_of_this_thread = threading.local()


@contextmanager
def counted(device: torch.device) -> Iterator[Counter]:
    """Yields a counter, complete after the context. Counters do not nest: an outer one sees nothing."""
    with hidden():
        gc.collect()  # older tensors in reference cycles, released meanwhile, would hide as many new bytes
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        counter = Counter(device, Peaks.read(device, "current"))
        _open.append(counter)
        try:
            yield counter
            torch.cuda.synchronize(device)
        finally:
            counter.fold()
            _open.remove(counter)


@contextmanager
def hidden() -> Iterator[None]:
    """Within the context nothing counts; nor does afterwards what it leaves behind."""
    outer = _open[-1] if _open else None
    if outer is None or outer.is_hidden:  # the outermost of several hides what is between the others, too
        yield
        return
    outer.fold()
    outer.is_hidden = True
    begin = Peaks.read(outer.device, "current")
    try:
        yield
    finally:
        left = Peaks.read(outer.device, "current")
        outer.before = Peaks(
            *(base + after - then for base, after, then in zip(outer.before, left, begin, strict=True))
        )
        torch.cuda.reset_peak_memory_stats(outer.device)
        outer.is_hidden = False


@contextmanager
def nothing_else_released() -> Iterator[None]:
    """Within the context no garbage collection releases older tensors: what an action added is read off
    counters of the whole process, and would be less by as much.
    """
    gc.collect()
    with nothing_collected():
        yield


def indexed(device: torch.device | str) -> torch.device:
    """`device` with its index: torch takes `cuda` for the current device in most places, not in all."""
    chosen = torch.device(device)
    index: int | None = chosen.index
    if chosen.type == "cuda" and index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return chosen


def warm_up(device: torch.device) -> None:
    """Let the matrix library take its workspaces (32 MiB each on an H100), which it keeps: one for this
    thread and one for autograd's; and again (1 MiB each with torch 2.11) for products that add a bias, which
    another part of it computes.
    """
    with torch.inference_mode(mode=False), torch.enable_grad():
        square = torch.ones(16, 16, device=device, requires_grad=True)
        bias = torch.ones(16, device=device)

        def add_bias(product: torch.Tensor) -> None:
            torch.addmm(bias, product, product)

        product = torch.mm(square, square)
        product.register_hook(add_bias)  # type: ignore[no-untyped-call]
        add_bias(product.detach())
        backward(product.sum())
    torch.cuda.synchronize(device)


def workspaces_ready(device: torch.device) -> None:
    """See to it that the matrix library has its workspaces for this thread and its current stream, and for
    autograd's thread on that stream: the first product of a thread or stream takes them, and no plan, which
    was made on another, counts them. Nor does a measurement.
    """
    ready: set[tuple[torch.device, int]] = vars(_of_this_thread).setdefault("ready", set())
    device = indexed(device)
    place = (device, torch.cuda.current_stream(device).cuda_stream)
    if place in ready or torch.cuda.is_current_stream_capturing():
        return
    with hidden(), torch.cuda.device(device):
        warm_up(device)
    ready.add(place)


def expandable_segments(environment: Mapping[str, str]) -> dict[str, str]:
    """What to add to the environment of a process that is to have expandable segments; nothing where it
    sets up the allocator itself. torch 2.9 renamed the variable.
    """
    names = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
    if any(name in environment for name in names):
        return {}
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    return {names[0] if version >= (2, 9) else names[1]: "expandable_segments:True"}
