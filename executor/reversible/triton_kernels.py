"""The kernels as Triton programs for CUDA devices: an update is one launch instead of some thirteen.

Numbers are integers in float64 below 2**51, on which every operation here is exact but for the quotients,
which Triton rounds to nearest as torch does: the bits are those of the torch kernels. Import this module only
where there is Triton (see choice.py).
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from executor.reversible import fixed_point, kernels
from executor.reversible.archive import Archive

ONE = tl.constexpr(fixed_point.ONE)
FACTOR_ONE = tl.constexpr(fixed_point.FACTOR_ONE)
WORD_ONE = tl.constexpr(kernels.WORD_ONE)
WORD_OFFSET = tl.constexpr(kernels.WORD_OFFSET)
ROUNDING = tl.constexpr(1.5 * 2.0**52)
"""Added to a float64 below 2**51 it leaves no room for a fraction: the sum is rounded, ties to even."""
_BLOCK = 512


@triton.jit
def _to_fixed(values):
    return (values.to(tl.float64) * ONE + ROUNDING) - ROUNDING


@triton.jit
def _advance(fixed, buffer, factor, addend, value, count, BLOCK: tl.constexpr):
    unit = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = unit < count
    before = tl.load(fixed + unit, mask=inside, other=0.0)
    lost = tl.load(buffer + unit, mask=inside, other=0.0)
    by = tl.load(factor + unit, mask=inside, other=1.0).to(tl.float64)
    added = _to_fixed(tl.load(addend + unit, mask=inside, other=0.0))
    coarse = tl.floor(before * (1 / FACTOR_ONE))
    pool = (before - coarse * FACTOR_ONE) + lost * FACTOR_ONE
    shrunk = tl.floor(pool / by)
    after = (pool - shrunk * by) + coarse * by + added
    tl.store(buffer + unit, shrunk, mask=inside)
    tl.store(fixed + unit, after, mask=inside)
    tl.store(value + unit, after * (1 / ONE), mask=inside)


@triton.jit
def _reverse(fixed, buffer, factor, addend, value, count, BLOCK: tl.constexpr):
    unit = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = unit < count
    after = tl.load(fixed + unit, mask=inside, other=0.0)
    lost = tl.load(buffer + unit, mask=inside, other=0.0)
    by = tl.load(factor + unit, mask=inside, other=1.0).to(tl.float64)
    product = after - _to_fixed(tl.load(addend + unit, mask=inside, other=0.0))
    coarse = tl.floor(product / by)
    pool = (product - coarse * by) + lost * by
    shrunk = tl.floor(pool * (1 / FACTOR_ONE))
    before = (pool - shrunk * FACTOR_ONE) + coarse * FACTOR_ONE
    tl.store(buffer + unit, shrunk, mask=inside)
    tl.store(fixed + unit, before, mask=inside)
    tl.store(value + unit, before * (1 / ONE), mask=inside)


@triton.jit
def _split_full(buffer, factor, gate, words, is_full, count, BLOCK: tl.constexpr):
    unit = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = unit < count
    bits = tl.load(buffer + unit, mask=inside, other=0.0)
    full = bits >= tl.load(factor + unit, mask=inside, other=1.0).to(tl.float64) * gate
    rest = tl.floor(bits * (1 / WORD_ONE))
    tl.store(words + unit, (bits - rest * WORD_ONE - WORD_OFFSET).to(tl.int16), mask=inside)
    tl.store(is_full + unit, full, mask=inside)
    tl.store(buffer + unit, tl.where(full, rest, bits), mask=inside)


@triton.jit
def _join_low(buffer, is_low, ends, words, count, BLOCK: tl.constexpr):
    unit = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = unit < count
    low = inside & (tl.load(is_low + unit, mask=inside, other=0) != 0)
    rest = tl.load(buffer + unit, mask=low, other=0.0)
    word = tl.load(words + tl.load(ends + unit, mask=low, other=1) - 1, mask=low, other=0).to(tl.float64)
    tl.store(buffer + unit, rest * WORD_ONE + (word + WORD_OFFSET), mask=low)


class TritonKernels:
    """See Kernels, whose `gate` and `floor` must be powers of two. Tensors of one CUDA device."""

    def advance(self, fixed: Tensor, buffer: Tensor, factor: Tensor, addend: Tensor, value: Tensor) -> None:
        """See Kernels."""
        _launch(_advance, fixed, buffer, factor.contiguous(), addend.contiguous(), value)

    def reverse(self, fixed: Tensor, buffer: Tensor, factor: Tensor, addend: Tensor, value: Tensor) -> None:
        """See Kernels."""
        _launch(_reverse, fixed, buffer, factor.contiguous(), addend.contiguous(), value)

    def move_full(self, buffer: Tensor, factor: Tensor, gate: float, archive: Archive) -> None:
        """See Kernels; waits for the device once, to learn how many words there are."""
        words = torch.empty_like(buffer, dtype=torch.int16)
        is_full = torch.empty_like(buffer, dtype=torch.bool)
        _launch(_split_full, buffer, factor.contiguous(), gate, words, is_full)
        archive.push(words[is_full])

    def refill(self, buffer: Tensor, floor: float, archive: Archive) -> None:
        """See Kernels; waits for the device once."""
        is_low = (buffer < floor).view(-1)
        ends = is_low.cumsum(0)
        count = int(ends[-1])
        if count:
            _launch(_join_low, buffer, is_low, ends, archive.pop(count))


def _launch(program: Any, first: Tensor, *arguments: Tensor | float) -> None:
    """One program for every _BLOCK units of `first`, on its device."""
    count = first.numel()
    with torch.cuda.device(first.device if first.is_cuda else -1):
        program[(-(-count // _BLOCK),)](first, *arguments, count, BLOCK=_BLOCK, enable_fp_fusion=False)
