"""What a step should leave alone, as it is at one moment: random streams and buffers.

A buffer may for a while be a copy of itself without the step's doing: another thread that probes a loop of
its own, in which the same frozen module takes part, has put the copy there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from executor.surroundings.streams import Stream
from executor.trees import version_of


class Fingerprint(NamedTuple):
    """That of one moment."""

    streams: tuple[int, ...]
    """Hashes of their states."""
    buffers: tuple[tuple[Tensor, int], ...]
    """With their versions."""

    @classmethod
    def of(cls, streams: Iterable[Stream], buffers: Iterable[Tensor]) -> Fingerprint:
        """As they are now."""
        return cls(
            tuple(hash(stream.get_state().numpy().tobytes()) for stream in streams),
            tuple((buffer, version_of(buffer)) for buffer in buffers),
        )

    def has_buffers_of(self, other: Fingerprint) -> bool:
        """Whether nobody wrote to a buffer or put another in its place since `other`, or before it."""
        return len(self.buffers) == len(other.buffers) and all(
            version == version_then if now is then else is_copy(now, then)
            for (now, version), (then, version_then) in zip(self.buffers, other.buffers, strict=True)
        )


def is_copy(found: Any, buffer: Tensor) -> bool:
    """Whether `found` is `buffer`, or a tensor like it with the same values."""
    if found is buffer:
        return True
    is_like = isinstance(found, Tensor) and (found.dtype, found.device) == (buffer.dtype, buffer.device)
    return is_like and torch.equal(found, buffer)
