"""The words that left the buffers: a stack of 16-bit numbers in blocks, one stack per layer."""

from __future__ import annotations

import torch
from torch import Tensor

from executor.reversal import WORD_BYTES

WORD_BITS = 8 * WORD_BYTES
BLOCK_WORDS = 2**14
"""Words allocated at a time, 32 KiB: what a stack may hold beyond its words."""
LEAST_BLOCK_WORDS = 2**8
"""CUDA's allocator hands out no less."""


def block_words(units: int) -> int:
    """The smallest block that is worth its while for `units` that move words at once."""
    return min(BLOCK_WORDS, max(LEAST_BLOCK_WORDS, units))


class Archive:
    """A last-in-first-out stack of words; what was pushed together may be popped in parts."""

    def __init__(self, device: torch.device, *, block_words: int = BLOCK_WORDS) -> None:
        self._device = device
        self._block_words = block_words
        self._blocks: list[Tensor] = []
        self._size = 0
        self._keeps_blocks = False
        self._idle: list[Tensor] = []

    def __len__(self) -> int:
        """Number of words."""
        return self._size

    @property
    def stored_bytes(self) -> int:
        """Bytes of the words, exactly."""
        return self._size * WORD_BYTES

    @property
    def allocated_bytes(self) -> int:
        """Bytes of the blocks that hold them, less than one block more, and of those that wait."""
        return (len(self._blocks) + len(self._idle)) * self._block_words * WORD_BYTES

    def keep_blocks(self) -> None:
        """From now on blocks wait for further words when they are empty, instead of being given back."""
        self._keeps_blocks = True

    def push(self, words: Tensor) -> None:
        """Put int16 `words` [count] on the stack."""
        start, count = 0, words.numel()
        while start < count:
            used = self._size % self._block_words
            if not used:
                self._blocks.append(self._idle.pop() if self._idle else self._block())
            part = min(count - start, self._block_words - used)
            self._blocks[-1][used : used + part] = words[start : start + part]
            self._size += part
            start += part

    def pop(self, count: int) -> Tensor:
        """Take the last `count` words, in the order in which they were pushed; valid until the next push.

        Raises IndexError when there are fewer.
        """
        if count > self._size:
            raise IndexError(f"{count} words were asked of an archive that holds {self._size}")
        parts: list[Tensor] = []
        while count:
            used = (self._size - 1) % self._block_words + 1
            part = min(count, used)
            parts.append(self._blocks[-1][used - part : used])
            if part == used:
                emptied = self._blocks.pop()
                if self._keeps_blocks:
                    self._idle.append(emptied)
            self._size -= part
            count -= part
        if len(parts) == 1:
            return parts[0]
        return torch.cat(parts[::-1]) if parts else torch.empty(0, dtype=torch.int16, device=self._device)

    def _block(self) -> Tensor:
        return torch.empty(self._block_words, dtype=torch.int16, device=self._device)


class Discard(Archive):
    """Takes words and forgets them: for a pass that nobody reverses."""

    def push(self, words: Tensor) -> None:
        """Drop the words."""
