"""The element-wise integer work of one update, in place, behind one interface.

`TorchKernels` runs everywhere. `native.NativeKernels` does the same in one pass over the data on the CPU
where a C compiler is at hand, `triton_kernels.TritonKernels` on CUDA where Triton is. Their results are
equal bit for bit, so that any may reverse what another did.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from executor.reversible.archive import WORD_BITS, Archive
from executor.reversible.fixed_point import ONE, divide, multiply

WORD_ONE = float(2**WORD_BITS)
WORD_OFFSET = float(2 ** (WORD_BITS - 1))
"""Words are stored as int16: less this, so that they fit."""


class Kernels(Protocol):
    """All tensors have one shape; `fixed` and `buffer` are float64 and change in place."""

    def advance(self, fixed: Tensor, buffer: Tensor, factor: Tensor, addend: Tensor, value: Tensor) -> None:
        """Multiply `fixed` by factor / 2**10, add `addend`; `value` receives the new state as a float."""

    def reverse(self, fixed: Tensor, buffer: Tensor, factor: Tensor, addend: Tensor, value: Tensor) -> None:
        """The inverse of `advance`; `value` receives the old state as a float."""

    def move_full(self, buffer: Tensor, factor: Tensor, gate: float, archive: Archive) -> None:
        """Move a word of each buffer of at least `gate` * factor to the archive."""

    def refill(self, buffer: Tensor, floor: float, archive: Archive) -> None:
        """Give a word back to each buffer below `floor`."""


class TorchKernels:
    """The kernels in terms of torch operations."""

    def advance(self, fixed: Tensor, buffer: Tensor, factor: Tensor, addend: Tensor, value: Tensor) -> None:
        """See Kernels."""
        product, grown = multiply(fixed, buffer, factor.double())
        fixed.copy_(product.add_(torch.round(addend.double() * ONE)))
        buffer.copy_(grown)
        value.copy_(fixed * (1 / ONE))

    def reverse(self, fixed: Tensor, buffer: Tensor, factor: Tensor, addend: Tensor, value: Tensor) -> None:
        """See Kernels."""
        product = fixed.sub_(torch.round(addend.double() * ONE))
        before, shrunk = divide(product, buffer, factor.double())
        fixed.copy_(before)
        buffer.copy_(shrunk)
        value.copy_(fixed * (1 / ONE))

    def move_full(self, buffer: Tensor, factor: Tensor, gate: float, archive: Archive) -> None:
        """See Kernels."""
        full = buffer >= factor.double() * gate
        moving = buffer[full]
        rest, words = split_words(moving)
        archive.push(words)
        buffer[full] = rest

    def refill(self, buffer: Tensor, floor: float, archive: Archive) -> None:
        """See Kernels."""
        low = buffer < floor
        rest = buffer[low]
        buffer[low] = join_words(rest, archive.pop(rest.numel()))


def split_words(buffer: Tensor) -> tuple[Tensor, Tensor]:
    """The buffers without their low 16 bits, and these as int16 words."""
    rest = torch.floor(buffer * (1 / WORD_ONE))
    return rest, torch.sub(buffer, rest, alpha=WORD_ONE).sub_(WORD_OFFSET).to(torch.int16)


def join_words(rest: Tensor, words: Tensor) -> Tensor:
    """The buffers that `split_words` split."""
    return words.double().add_(WORD_OFFSET).add_(rest, alpha=WORD_ONE)
