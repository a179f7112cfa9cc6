"""Random streams of Python and numpy as those of torch: teacher forcing may toss its coins with any of them.

Their state is bytes of one length, so that stored states keep their size while numbers are drawn.
"""

from __future__ import annotations

import pickle
import random
import struct
import sys
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any, Protocol

import torch
from torch import Tensor

_TWISTER = struct.Struct("<625I?d")
"""State of Python's generator: 624 words and a position, and a normal number that may be left over."""
_LEAST_BYTES = 512


class Stream(Protocol):
    """What replay needs of a random stream; `torch.Generator` is one."""

    def get_state(self) -> Tensor:
        """Where it is."""

    def set_state(self, new_state: Tensor) -> Any:
        """Put it there."""


class PythonStream:
    """A `random.Random`."""

    def __init__(self, source: random.Random) -> None:
        self.source = source

    def get_state(self) -> Tensor:
        """See `Stream`; uint8 [2509]."""
        _, words, left = self.source.getstate()
        return _bytes_of(_TWISTER.pack(*words, left is not None, left or 0.0))

    def set_state(self, new_state: Tensor) -> None:
        """See `Stream`."""
        *words, has_left, left = _TWISTER.unpack(new_state.numpy().tobytes())
        self.source.setstate((3, tuple(words), left if has_left else None))


class NumpyStream:
    """A Generator, RandomState or bit generator of numpy."""

    def __init__(self, source: Any) -> None:
        bits = getattr(source, "bit_generator", source)  # a RandomState keeps a normal number besides
        self.source = source if hasattr(source, "get_state") else bits

    def get_state(self) -> Tensor:
        """See `Stream`; uint8, as many as the next power of two."""
        is_old = hasattr(self.source, "get_state")
        written = pickle.dumps(self.source.get_state(legacy=False) if is_old else self.source.state)
        return _bytes_of(written.ljust(max(_LEAST_BYTES, 1 << len(written).bit_length()), b"\0"))

    def set_state(self, new_state: Tensor) -> None:
        """See `Stream`."""
        state = pickle.loads(new_state.numpy().tobytes())  # noqa: S301 - written above
        if hasattr(self.source, "set_state"):
            self.source.set_state(state)
        else:
            self.source.state = state


def stream_of(value: Any) -> PythonStream | NumpyStream | None:
    """The stream that `value` is, where it is one of Python or numpy."""
    if type(value) is random.Random:
        return PythonStream(value)
    kind = type(value)
    if kind.__module__.startswith("numpy.random") and (
        hasattr(value, "bit_generator") or hasattr(value, "get_state") or hasattr(value, "cffi")
    ):
        return NumpyStream(value)
    return None


def global_stream_of(module: ModuleType, *, draws: bool) -> Any:
    """The stream of Python's `random` or numpy's `random`, or, where lines draw from it, of numpy."""
    if module is random:
        return random._inst  # noqa: SLF001 - the one behind random.random
    numpy = sys.modules.get("numpy")
    if numpy is not None and (module is numpy.random or (module is numpy and draws)):
        return numpy.random.mtrand._rand  # noqa: SLF001 - the one behind numpy.random.random
    return None


def ambient_generators(tensors: Sequence[Any]) -> list[torch.Generator]:
    """The default random streams of the CPU and of every CUDA device that `tensors` live on."""
    devices = sorted({leaf.device.index for leaf in tensors if isinstance(leaf, Tensor) and leaf.is_cuda})
    return [torch.default_generator, *(torch.cuda.default_generators[index] for index in devices)]


def set_streams(generators: Iterable[Stream], states: Iterable[Tensor]) -> None:
    """Set random streams to what `get_state` said of them."""
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)


def _bytes_of(written: bytes) -> Tensor:
    return torch.frombuffer(bytearray(written), dtype=torch.uint8).clone()  # in memory that is counted
