"""What tapes keep, by storage: on the device, in a tier, or on the way.

Autograd's hooks for saved tensors tell what a tape keeps. Storages travel, each once, whatever number of
saved tensors lies in it; a storage that two neighbouring tapes share (the state between them) goes and comes
with the later one. A saved tensor that others hold too is copied like the rest: theirs is not touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


class Storage:
    """A piece of memory that saved tensors lie in."""

    def __init__(self, memory: torch.UntypedStorage, address: int, device: torch.device) -> None:
        self.memory: torch.UntypedStorage | None = memory
        """None while it is not on the device."""
        self.address = address
        """Where it lay when its tape was made."""
        self.size_bytes = memory.nbytes()
        self._device = device
        self._watched: list[tuple[Tensor, int]] = []

    @classmethod
    def of(cls, tensor: Tensor) -> Storage:
        """The storage of `tensor`."""
        memory = tensor.untyped_storage()
        return cls(memory, memory.data_ptr(), tensor.device)

    @property
    def flat(self) -> Tensor:
        """All of it as uint8."""
        assert self.memory is not None  # noqa: S101 - whoever asks has not let it go, or fetched it
        return torch.empty(0, dtype=torch.uint8, device=self._device).set_(self.memory)

    def watch(self, tensor: Tensor) -> None:
        """`tensor`, which lies here, was saved as it is now."""
        self._watched.append((tensor, tensor._version))

    def require_unchanged(self) -> None:
        """Raise RuntimeError, as autograd would, when what was saved has been written to since."""
        if any(tensor._version != version for tensor, version in self._watched):
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an inplace "
                "operation: a step wrote into a tensor that its tape keeps"
            )
        self._watched.clear()

    def make_room(self) -> Tensor:
        """New memory on the device, still to be filled."""
        flat = torch.empty(self.size_bytes, dtype=torch.uint8, device=self._device)
        self.memory = flat.untyped_storage()
        return flat


class _Saved:
    """A saved tensor: where it lies in its storage."""

    __slots__ = ("_dtype", "_place", "_storage")

    def __init__(self, storage: Storage, tensor: Tensor) -> None:
        self._storage = storage
        self._dtype = tensor.dtype
        self._place = (tensor.storage_offset(), tensor.shape, tensor.stride())

    def tensor(self) -> Tensor:
        memory = self._storage.memory
        assert memory is not None  # noqa: S101 - a tape is reversed once it has come back
        return torch.empty(0, dtype=self._dtype, device=memory.device).set_(memory, *self._place)


class TapeStorages:
    """The storages of tapes that follow one another, except those that begin at an address in `kept`, which
    stay on `device` in any case.
    """

    def __init__(self, kept: frozenset[int], device: torch.device) -> None:
        self._kept = kept
        self._device = device
        self._on_device: WeakValueDictionary[int, Storage] = WeakValueDictionary()

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Within the context a tape is made."""
        with saved_tensors_hooks(self._pack, _unpacked):
            yield

    def leaving(self, besides: Iterable[int]) -> list[Storage]:
        """What was collected and is to leave the device now, except the storages at the addresses `besides`.

        Raises RuntimeError when a tensor was changed in place after it was saved.
        """
        staying = frozenset(besides)
        collected = dict(self._on_device.items())
        for storage in collected.values():
            storage.require_unchanged()
        leaving = {address: each for address, each in collected.items() if address not in staying}
        for address in leaving:
            del self._on_device[address]
        return list(leaving.values())

    def _pack(self, tensor: Tensor) -> Any:
        tensor = tensor.detach()
        if type(tensor) is not Tensor or tensor.layout is not torch.strided or tensor.device != self._device:
            return tensor
        if tensor.is_conj() or tensor.is_neg():
            tensor = tensor.resolve_conj().resolve_neg()
        memory = tensor.untyped_storage()
        address = memory.data_ptr()
        if address in self._kept or not address:
            return tensor
        storage = self._on_device.get(address)
        if storage is None:
            storage = self._on_device[address] = Storage(memory, address, self._device)
        storage.watch(tensor)
        return _Saved(storage, tensor)


def _unpacked(kept: Any) -> Tensor:
    tensor: Tensor = kept.tensor() if isinstance(kept, _Saved) else kept
    return tensor
