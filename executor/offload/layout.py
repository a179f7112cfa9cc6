"""A stored state as the bytes of its storages, and how to put it together again.

Storages travel, not tensors: two leaves that share memory on the device share it again when they come
back, and no more bytes are held than the probe saw. What belongs to the initial state stays where it is:
the caller holds it anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from executor.replay import Surroundings
from executor.stages.states import StoredState


class _View(NamedTuple):
    """A tensor: where it lies in the state's storages."""

    storage: int
    dtype: torch.dtype
    device: torch.device
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Layout(NamedTuple):
    """A state without its bytes. Leaves are views, or what they are where nothing travels."""

    leaves: tuple[Any, ...]
    streams: tuple[Any, ...]
    buffers: tuple[Any, ...]
    sizes: tuple[tuple[int, torch.device], ...]
    """Bytes and device of each storage."""

    @property
    def size_bytes(self) -> int:
        """Bytes that travel."""
        return sum(size for size, _ in self.sizes)


def taken_apart(state: StoredState, kept: frozenset[int]) -> tuple[Layout, list[Tensor]]:
    """The layout of `state` and its storages as flat uint8 tensors. Storages that begin at an address in
    `kept` stay where they are.
    """
    storages: dict[int, Tensor] = {}
    positions: dict[int, int] = {}

    def apart(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or leaf.untyped_storage().data_ptr() in kept:
            return leaf
        leaf = leaf.resolve_conj().resolve_neg()
        storage = leaf.untyped_storage()
        address = storage.data_ptr()
        if address not in positions:
            positions[address] = len(positions)
            storages[address] = torch.empty(0, dtype=torch.uint8, device=leaf.device).set_(storage)
        view = (leaf.storage_offset(), tuple(leaf.shape), leaf.stride())
        return _View(positions[address], leaf.dtype, leaf.device, *view)

    # Random streams first, so that they lie at one place of every slot: they are the host's and copied at
    # once, while copies of the device's storages, between and after which leaves may come to share one, are
    # still under way in the slot that another state left.
    streams, leaves, buffers = (
        tuple(apart(leaf) for leaf in part)
        for part in (state.surroundings.streams, state.leaves, state.surroundings.buffers)
    )
    flat = list(storages.values())
    sizes = tuple((tensor.numel(), tensor.device) for tensor in flat)
    return Layout(leaves, streams, buffers, sizes), flat


def put_together(layout: Layout) -> tuple[StoredState, list[Tensor]]:
    """A state of this layout in new memory, and its storages, still to be filled."""
    flat = [torch.empty(size, dtype=torch.uint8, device=device) for size, device in layout.sizes]

    def together(leaf: Any) -> Any:
        if not isinstance(leaf, _View):
            return leaf
        storage = flat[leaf.storage].untyped_storage()
        empty = torch.empty(0, dtype=leaf.dtype, device=leaf.device)
        return empty.set_(storage, leaf.offset, leaf.size, leaf.stride)

    leaves, streams, buffers = (
        tuple(together(leaf) for leaf in part) for part in (layout.leaves, layout.streams, layout.buffers)
    )
    return StoredState(leaves, Surroundings(streams, buffers)), flat


def storages_of(leaves: Sequence[Any]) -> frozenset[int]:
    """The addresses at which the storages of the tensors among `leaves` begin."""
    return frozenset(leaf.untyped_storage().data_ptr() for leaf in leaves if isinstance(leaf, Tensor))
