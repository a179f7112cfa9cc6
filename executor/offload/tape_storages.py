"""What tapes keep, by storage: on the device, in a tier, or on the way.

Autograd's hooks for saved tensors tell what a tape keeps. Storages travel, each once, whatever number of
saved tensors lies in it; a storage that two neighbouring tapes share (the state between them) goes and comes
with the later one. A saved tensor that others hold too is copied like the rest: theirs is not touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn
from weakref import WeakValueDictionary, ref

import torch
from torch import Tensor

from executor.rules.saved_tensor_hooks import own_hooks

MOST_OVERSIZE = 4
"""A storage that is larger than what was saved of it by more than this factor is somebody else's: a view of a
data set, say. It stays where it is.
"""


class Storage:
    """A piece of memory that saved tensors lie in."""

    def __init__(self, memory: torch.UntypedStorage, address: int, device: torch.device) -> None:
        self.memory: torch.UntypedStorage | None = memory
        """None while it is not on the device."""
        self.address = address
        """Where it lay when its tape was made."""
        self.size_bytes = memory.nbytes()
        self._device = device
        self._saved_bytes = 0
        self._watched: list[ref[_Saved]] = []

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

    def saved(self, tensor: Tensor) -> _Saved:
        """What stands for `tensor`, which lies here, in the graph."""
        self._saved_bytes += tensor.nbytes
        saved = _Saved(self, tensor)
        self._watched.append(ref(saved))  # it refers to this storage: no cycle
        return saved

    @property
    def is_own(self) -> bool:
        """Whether the tape made it, by its size."""
        return self.size_bytes <= MOST_OVERSIZE * self._saved_bytes

    def leave(self) -> None:
        """From here on saved tensors are what they are now: no later change of the memory is theirs."""
        for reference in self._watched:
            saved = reference()
            if saved is not None:
                saved.settle()
        self._watched.clear()

    def make_room(self) -> Tensor:
        """New memory on the device, still to be filled."""
        flat = torch.empty(self.size_bytes, dtype=torch.uint8, device=self._device)
        self.memory = flat.untyped_storage()
        return flat


class _Saved:
    """A saved tensor: where it lies in its storage."""

    __slots__ = ("__weakref__", "_dtype", "_is_changed", "_place", "_storage", "_tensor", "_version")

    def __init__(self, storage: Storage, tensor: Tensor) -> None:
        self._storage = storage
        self._dtype = tensor.dtype
        self._place = (tensor.storage_offset(), tensor.shape, tensor.stride())
        self._tensor: Tensor | None = tensor
        self._version = tensor._version
        self._is_changed = False

    def settle(self) -> None:
        """Note whether it was written to since it was saved, and let the tensor go."""
        if self._tensor is not None:
            self._is_changed = self._tensor._version != self._version
            self._tensor = None

    def tensor(self) -> Tensor:
        if self._tensor is not None:
            return _unchanged(self._tensor, self._version)
        if self._is_changed:
            raise_changed()
        memory = self._storage.memory
        assert memory is not None  # noqa: S101 - a tape is reversed once it has come back
        return torch.empty(0, dtype=self._dtype, device=memory.device).set_(memory, *self._place)


class _Staying(NamedTuple):
    """A saved tensor that stays on the device."""

    kept: Tensor
    version: int

    def tensor(self) -> Tensor:
        return _unchanged(self.kept, self.version)


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
        with own_hooks(self._pack, _unpacked):
            yield

    def leaving(self, besides: Iterable[int]) -> list[Storage]:
        """What was collected and is to leave the device now, except storages at the addresses `besides`."""
        staying = frozenset(besides)
        leaving = {address: each for address, each in self._on_device.items() if address not in staying}
        for address in leaving:
            del self._on_device[address]
        return [each for each in leaving.values() if each.is_own]

    def _pack(self, tensor: Tensor) -> Any:
        version, tensor = tensor._version, tensor.detach()
        is_plain = type(tensor) is Tensor and not tensor.is_nested and tensor.layout is torch.strided
        if not is_plain or tensor.device != self._device:
            return _Staying(tensor, version)
        if tensor.is_conj() or tensor.is_neg():
            tensor = tensor.resolve_conj().resolve_neg()
        memory = tensor.untyped_storage()
        address = memory.data_ptr()
        if address in self._kept or not address:
            return _Staying(tensor, tensor._version)
        storage = self._on_device.get(address)
        if storage is None:
            storage = self._on_device[address] = Storage(memory, address, self._device)
        return storage.saved(tensor)


def _unpacked(saved: _Saved | _Staying) -> Tensor:
    return saved.tensor()


def _unchanged(tensor: Tensor, version: int) -> Tensor:
    """`tensor`, unless it was written to since it had that version."""
    if tensor._version != version:
        raise_changed()
    return tensor


def raise_changed() -> NoReturn:
    """As autograd would, whose own check hooks for saved tensors switch off."""
    raise RuntimeError(
        "one of the variables needed for gradient computation has been modified by an inplace operation: a "
        "step wrote into a tensor that its tape keeps"
    )
