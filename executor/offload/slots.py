"""The memory of a tier: equal slots, one per stored state, in as few pieces as the budget allows.

Host memory beside the CPU is mapped from the system rather than taken from torch's allocator, so that a
measurement of the device's memory does not see it. Beside CUDA it is pinned; torch hands that out in
powers of two, which count in full, and keeps it for the next call: as soon as it knows that the copies in it
are over. A disk is a nameless temporary file.
"""

from __future__ import annotations

import mmap
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from executor.errors import HostMemoryRefused, PlanMismatch

HOST = "host"
"""The tier that is host memory: pinned where the device is CUDA."""
DISK = "disk"
"""The tier that is a file, in the folder for temporary files."""

_held_bytes: dict[str, int] = {}
_peak_bytes: dict[str, int] = {}
_in_doubt: set[torch.device] = set()
"""CUDA devices that may not be done with pinned memory that was given back."""


@contextmanager
def recorded_peaks() -> Iterator[dict[str, int]]:
    """Yields a dictionary: afterwards, most bytes that each tier held within the context beyond what it
    held before. Of host memory on CUDA they are pinned bytes, as torch's allocator rounds them.
    """
    before, found = dict(_held_bytes), dict[str, int]()
    outer = dict(_peak_bytes)
    _peak_bytes.clear()
    try:
        yield found
    finally:
        found.update({name: peak - before.get(name, 0) for name, peak in _peak_bytes.items()})
        for name, peak in outer.items():
            _peak_bytes[name] = max(peak, _peak_bytes.get(name, 0))


class _Piece:
    """Some slots in one piece of memory; counted while it lives."""

    def __init__(self, tier: str, size_bytes: int, pinned_for: torch.device | None) -> None:
        self.bytes = _allocated(tier, size_bytes, pinned_for)
        _held_bytes[tier] = _held_bytes.get(tier, 0) + size_bytes
        _peak_bytes[tier] = max(_peak_bytes.get(tier, 0), _held_bytes[tier])
        weakref.finalize(self, _give_back, tier, size_bytes, pinned_for)


def _give_back(tier: str, size_bytes: int, pinned_for: torch.device | None) -> None:
    _held_bytes[tier] -= size_bytes
    if pinned_for is not None:
        _in_doubt.add(pinned_for)


def _allocated(tier: str, size_bytes: int, pinned_for: torch.device | None) -> Tensor:
    if pinned_for is not None:
        _catch_up(pinned_for)
        return _pinned(size_bytes)
    if tier == HOST:
        return torch.frombuffer(mmap.mmap(-1, size_bytes), dtype=torch.uint8)
    if tier == DISK:
        with tempfile.TemporaryFile() as file:
            file.truncate(size_bytes)
            return torch.frombuffer(mmap.mmap(file.fileno(), size_bytes), dtype=torch.uint8)
    raise PlanMismatch(f"the plan stores states in {tier!r}: this executor has the tiers {HOST} and {DISK}")


def _pinned(size_bytes: int) -> Tensor:
    try:
        return torch.empty(size_bytes, dtype=torch.uint8, device="cpu", pin_memory=True)
    except RuntimeError as error:  # of CUDA, which speaks of no host
        reason = str(error).partition("\n")[0]
        raise HostMemoryRefused(
            f"{size_bytes} bytes of host memory could not be pinned ({reason}): give a smaller host_budget"
        ) from error


def _catch_up(device: torch.device) -> None:
    """Wait for the copies in pinned memory that was given back: the device may be an iteration behind, and
    torch would pin as many bytes again, beyond every budget, in seconds for some gigabytes.
    """
    # Nothing may wait while a graph is captured.
    if device in _in_doubt and not torch.cuda.is_current_stream_capturing():
        _in_doubt.discard(device)
        torch.cuda.synchronize(device)


def unpin_unused(device: torch.device) -> None:
    """Let torch give back pinned memory that nobody uses."""
    unpin = getattr(torch._C, "_host_emptyCache", None)  # noqa: SLF001 - it has no public name
    if device.type == "cuda" and unpin is not None:
        torch.cuda.synchronize(device)
        unpin()


class Slots:
    """`count` slots of `slot_bytes` each, allocated when the first is taken."""

    def __init__(self, tier: str, *, count: int, slot_bytes: int, device: torch.device) -> None:
        self._tier = tier
        self._slot_bytes = slot_bytes
        self._pinned_for = device if is_pinned(tier, device) else None
        self._sizes = piece_sizes(count, slot_bytes, rounded=self._pinned_for is not None)
        self._free: list[tuple[_Piece, Tensor]] = []
        self._grown_bytes = 0

    def take(self, size_bytes: int) -> tuple[_Piece, Tensor]:
        """A slot: what keeps it alive, and `size_bytes` of it. Raises PlanMismatch when none is left."""
        if not self._free:
            self._grow()
        if not self._free or size_bytes > self._slot_bytes:
            raise PlanMismatch(
                f"{self._tier} has no room for {size_bytes} bytes more: its slots have {self._slot_bytes} "
                "each, and the plan counts on no more of them"
            )
        piece, slot = self._free.pop()
        return piece, slot

    def take_any(self, size_bytes: int, most_bytes: int) -> tuple[_Piece, Tensor]:
        """Like `take`; what is larger than a slot gets memory of its own, as long as no more than
        `most_bytes` are held. It is not taken again.
        """
        if size_bytes <= self._slot_bytes:
            return self.take(size_bytes)
        size = size_bytes if self._pinned_for is None else 1 << (size_bytes - 1).bit_length()
        if self._grown_bytes + sum(self._sizes) + size > most_bytes:
            return self.take(size_bytes)
        piece = self._piece(size)
        return piece, piece.bytes

    def put(self, slot: tuple[_Piece, Tensor]) -> None:
        """The slot may be taken again."""
        if len(slot[1]) == self._slot_bytes:
            self._free.append(slot)

    def _piece(self, size_bytes: int) -> _Piece:
        self._grown_bytes += size_bytes
        return _Piece(self._tier, size_bytes, self._pinned_for)

    def _grow(self) -> None:
        if not self._sizes:
            return
        size_bytes = self._sizes.pop(0)
        piece = self._piece(size_bytes)
        for first in range(0, size_bytes - self._slot_bytes + 1, self._slot_bytes):
            self._free.append((piece, piece.bytes.narrow(0, first, self._slot_bytes)))


def is_pinned(tier: str, device: torch.device) -> bool:
    """Whether the slots of `tier` are pinned host memory."""
    return tier == HOST and device.type == "cuda"


def piece_sizes(count: int, slot_bytes: int, *, rounded: bool) -> list[int]:
    """Bytes of the pieces that hold `count` slots: one piece, or powers of two with little to spare."""
    if count == 0 or slot_bytes == 0:
        return []
    if not rounded:
        return [count * slot_bytes]
    above = 1 << (count * slot_bytes - 1).bit_length()
    below = above // 2
    if below < slot_bytes:
        return [above]
    split = [below, *piece_sizes(count - below // slot_bytes, slot_bytes, rounded=True)]
    return split if sum(split) < above else [above]


def most_slots(budget_bytes: int, slot_bytes: int, *, rounded: bool) -> int:
    """How many slots can be held in `budget_bytes`."""
    count = budget_bytes // slot_bytes if slot_bytes else 0
    while sum(piece_sizes(count, slot_bytes, rounded=rounded)) > budget_bytes:
        count -= 1
    return count
