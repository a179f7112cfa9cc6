"""The buffers of modules, put aside and back: a step that runs again must find those that it found at first.

Statistics of BatchNorm and the power iteration of spectral norm are such buffers. Which of them a step
changes is found by comparing them with copies, by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from executor.errors import StateMutated
from executor.surroundings.streams import Stream, set_streams
from executor.trees import version_of


class Buffers:
    """All buffers of some modules, by the dictionaries that own them."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.slots: list[tuple[dict[str, Any], str]] = []
        self.names: list[str] = []
        taken: set[nn.Module] = set()
        for module in modules:
            for prefix, owner in module.named_modules(taken):
                for name, buffer in owner._buffers.items():
                    if buffer is not None:
                        self.slots.append((owner._buffers, name))
                        self.names.append(f"{prefix}.{name}" if prefix else name)

    def current(self) -> list[Tensor]:
        """The tensors that are in the modules now."""
        return [tensor for slots, name in self.slots if (tensor := slots[name]) is not None]

    def put(self, tensors: Iterable[Tensor]) -> None:
        """Put other tensors into the modules."""
        for (slots, name), tensor in zip(self.slots, tensors, strict=True):
            slots[name] = tensor

    def changed_since(self, copies: Iterable[Tensor]) -> frozenset[str]:
        """Names of those that differ from `copies`, which are in the order of `current`."""
        return frozenset(
            name
            for name, before, after in zip(self.names, copies, self.current(), strict=True)
            if before.shape != after.shape or not torch.equal(before, after)
        )

    def written_since(self, tensors: Sequence[Tensor], versions: Sequence[int]) -> frozenset[str]:
        """Names of those that are others than `tensors`, or were written, with whatever values: a power
        iteration that has converged goes on when the weights change.
        """
        return frozenset(
            name
            for name, before, version, after in zip(
                self.names, tensors, versions, self.current(), strict=True
            )
            if before is not after or version != version_of(after)
        )

    def require_apart(self, changed: frozenset[str]) -> None:
        """Raise StateMutated where one of those that steps change is a view of another buffer."""
        storages: dict[int, tuple[str, Tensor]] = {}
        for name, tensor in zip(self.names, self.current(), strict=True):
            other, found = storages.setdefault(tensor.untyped_storage().data_ptr(), (name, tensor))
            if found is not tensor and tensor.numel() and not changed.isdisjoint((name, other)):
                raise StateMutated(
                    f"the step changes buffers {other} and {name}, of which one is a view of the other: put "
                    "back as copies they would be two; register one of them, and make the other from it"
                )

    def subset(self, names: frozenset[str]) -> Buffers:
        """Only the buffers of these names."""
        chosen = Buffers(())
        for slot, name in zip(self.slots, self.names, strict=True):
            if name in names:
                chosen.slots.append(slot)
                chosen.names.append(name)
        return chosen


def copied(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Copies without graphs; what stands there twice has one copy: tied buffers stay tied."""
    copies: dict[int, Tensor] = {}
    return [
        copies[id(each)] if id(each) in copies else copies.setdefault(id(each), each.detach().clone())
        for each in tensors
    ]


@contextmanager
def untouched(buffers: Buffers, generators: Sequence[Stream]) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Within the context modules hold copies of their buffers; afterwards the buffers themselves, and the
    random streams are where they were. Gives both as they were.
    """
    originals = buffers.current()
    streams = [generator.get_state() for generator in generators]
    buffers.put(copied(originals))
    try:
        yield originals, streams
    finally:
        buffers.put(originals)
        set_streams(generators, streams)
