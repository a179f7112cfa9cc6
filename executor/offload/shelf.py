"""What one tier holds while a plan runs: copies of stored states, and the copies under way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from executor.errors import PlanMismatch
from executor.offload import transfers
from executor.offload.layout import Layout, put_together, taken_apart
from executor.offload.slots import Slots
from executor.offload.transfers import Transfer
from executor.stages.states import StoredState
from planner_service.chain import Tier


class _Copy(NamedTuple):
    layout: Layout
    slot: Any
    written: Transfer
    reads: list[Transfer]


class Shelf:
    """The copies in `tier`, at most `most_states` at once, and its two streams, one per direction.

    A tier that does not overlap makes the computation wait for every transfer at once. Raises
    PlanMismatch for what a schedule may not do.
    """

    def __init__(self, tier: Tier, *, most_states: int, device: torch.device) -> None:
        self._tier = tier
        self._most_states = most_states
        self._device = device
        self._writes = transfers.copy_stream(device)
        self._reads = transfers.copy_stream(device)
        self._slots: Slots | None = None
        self._copies: dict[int, _Copy] = {}

    def store(self, index: int, state: StoredState, kept: frozenset[int]) -> Transfer:
        """Start writing x_index, except the storages that are `kept` on the device in any case."""
        if index in self._copies:
            raise PlanMismatch(f"{self._tier.name} holds x_{index} already")
        layout, flat = taken_apart(state, kept)
        slots = self._slots_of(layout.size_bytes)
        slot = slots.take(layout.size_bytes)
        written = self._started(self._writes.copy(_pairs(slot[1], flat, into_slot=True)))
        self._copies[index] = _Copy(layout, slot, written, [])
        return written

    def fetch(self, index: int) -> tuple[StoredState, Transfer]:
        """Start reading x_index into new memory on the device; the copy here stays."""
        copy = self._copy(index)
        state, flat = put_together(copy.layout)
        read = self._reads.copy(_pairs(copy.slot[1], flat, into_slot=False), after=copy.written)
        copy.reads.append(self._started(read))
        return state, read

    def discard(self, index: int) -> None:
        """Drop the copy of x_index; its slot is taken again only after the transfers that touch it."""
        copy = self._copy(index)
        for transfer in (copy.written, *copy.reads):
            transfer.wait()
        del self._copies[index]
        assert self._slots is not None  # noqa: S101 - for the type checker
        self._slots.put(copy.slot)

    def settle(self) -> None:
        """The computation waits for every transfer: device memory may go afterwards."""
        for copy in self._copies.values():
            for transfer in (copy.written, *copy.reads):
                transfer.wait()

    def _slots_of(self, slot_bytes: int) -> Slots:
        if self._slots is None:
            self._slots = Slots(
                self._tier.name, count=self._most_states, slot_bytes=slot_bytes, device=self._device
            )
        return self._slots

    def _copy(self, index: int) -> _Copy:
        copy = self._copies.get(index)
        if copy is None:
            raise PlanMismatch(f"{self._tier.name} does not hold x_{index}")
        return copy

    def _started(self, transfer: Transfer) -> Transfer:
        if not self._tier.overlapped:
            transfer.wait()
        return transfer


def _pairs(slot: Tensor, flat: list[Tensor], *, into_slot: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """(target, source) for each storage, which lie in the slot one after the other."""
    first = 0
    for tensor in flat:
        part = slot.narrow(0, first, tensor.numel())
        yield (part, tensor) if into_slot else (tensor, part)
        first += tensor.numel()
