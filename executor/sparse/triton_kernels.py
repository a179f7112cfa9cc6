"""Products with some of the columns or rows of a gate gradient, as Triton programs for CUDA devices.

Operands are read through the indices of what is kept: nothing is gathered into copies first. Sums are
float32; each tile of the result is computed by one program, so that the same operands give the same bits.
Import this module only where there is Triton (see choice.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from executor.surroundings.backends import products_may_round


class Tile(NamedTuple):
    """The part of a product that a program computes, and how much of the sum it reads at once."""

    rows: int
    columns: int
    inner: int
    warps: int


TILES = (Tile(16, 32, 64, 4), Tile(32, 64, 32, 4), Tile(64, 64, 32, 4), Tile(128, 64, 32, 8))
"""Which is fastest depends on the sizes: they are timed like the other kernels."""


@triton.jit
def _sum_over(
    a, b, scales, out, index, rows, kept, width, a_row, a_column, b_row,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Of a [rows, …] and b […, width], the sum over k of a[:, index[k]] scales[k] b[index[k]] as `out`."""
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.full((ROWS, COLUMNS), 0.0, tl.float32)
    for start in range(0, kept, INNER):
        k = start + tl.arange(0, INNER)
        is_kept = k < kept
        at = tl.load(index + k, mask=is_kept, other=0)
        scale = tl.load(scales + k, mask=is_kept, other=0.0)
        part = (row < rows)[:, None] & is_kept[None, :]
        left = tl.load(a + row[:, None] * a_row + at[None, :] * a_column, mask=part, other=0.0)
        part = is_kept[:, None] & (column < width)[None, :]
        right = tl.load(b + at[:, None] * b_row + column[None, :], mask=part, other=0.0)
        total = tl.dot(left, right * scale[:, None], total, input_precision=PRECISION)
    part = (row < rows)[:, None] & (column < width)[None, :]
    tl.store(out + row[:, None] * width + column[None, :], total, mask=part)


@triton.jit
def _add_at(
    a, b, out, index, kept, inner, width, a_row, a_column, b_row,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add a[index] b to the rows `index` of `out`, for a […, inner] and b [inner, width]."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    is_kept = row < kept
    at = tl.load(index + row, mask=is_kept, other=0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.full((ROWS, COLUMNS), 0.0, tl.float32)
    for start in range(0, inner, INNER):
        k = (start + tl.arange(0, INNER)).to(tl.int64)
        part = is_kept[:, None] & (k < inner)[None, :]
        left = tl.load(a + at[:, None] * a_row + k[None, :] * a_column, mask=part, other=0.0)
        part = (k < inner)[:, None] & (column < width)[None, :]
        right = tl.load(b + k[:, None] * b_row + column[None, :], mask=part, other=0.0)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    part = is_kept[:, None] & (column < width)[None, :]
    to = out + at[:, None] * width + column[None, :]
    tl.store(to, tl.load(to, mask=part, other=0.0) + total, mask=part)


class IndexedProducts:
    """See Products. Tensors are float32 and of one CUDA device."""

    def __init__(self, tile: Tile) -> None:
        self._tile = tile

    def through_columns(self, weight: Tensor, columns: Tensor) -> Callable[[Tensor], Tensor]:
        """See Products."""
        scales = torch.ones_like(columns, dtype=weight.dtype)
        return lambda gradient: self._sum_over(gradient, weight, columns, scales)

    def add_columns(self, total: Tensor, gradient: Tensor, inputs: Tensor, columns: Tensor) -> None:
        """See Products."""
        self._add_at(gradient.t(), inputs, total, columns)

    def of_rows(
        self, gradient: Tensor, inputs: Sequence[Tensor], rows: Tensor, scales: Tensor | None
    ) -> tuple[Tensor, ...]:
        """See Products."""
        chosen = torch.ones_like(rows, dtype=gradient.dtype) if scales is None else scales
        return tuple(self._sum_over(gradient.t(), part, rows, chosen) for part in inputs)

    def at_rows(self, gradient: Tensor, weight: Tensor, rows: Tensor) -> Tensor:
        """See Products."""
        out = gradient.new_zeros(gradient.shape[0], weight.shape[1])
        self._add_at(gradient, weight, out, rows)
        return out

    def _sum_over(self, a: Tensor, b: Tensor, index: Tensor, scales: Tensor) -> Tensor:
        rows, width, b = a.shape[0], b.shape[1], b.contiguous()
        out = a.new_empty(rows, width)
        sizes = (rows, len(index), width, *a.stride(), b.stride(0))
        self._launch(_sum_over, (rows, width), a, b, scales, out, index, *sizes)
        return out

    def _add_at(self, a: Tensor, b: Tensor, out: Tensor, index: Tensor) -> None:
        inner, width, b = *b.shape, b.contiguous()
        sizes = (len(index), inner, width, *a.stride(), b.stride(0))
        self._launch(_add_at, (len(index), width), a, b, out, index, *sizes)

    def _launch(self, program: Any, shape: tuple[int, int], *arguments: Tensor | int) -> None:
        """One program for every tile of a result of that shape."""
        tile, first = self._tile, arguments[0]
        grid = (-(-shape[0] // tile.rows), -(-shape[1] // tile.columns))
        with torch.cuda.device(first.device if isinstance(first, Tensor) and first.is_cuda else -1):
            program[grid](
                *arguments,
                ROWS=tile.rows,
                COLUMNS=tile.columns,
                INNER=tile.inner,
                PRECISION=_precision(),
                num_warps=tile.warps,
                enable_fp_fusion=True,
            )


def _precision() -> str:
    """That of torch's own products: TensorFloat-32 where the user allows it, else three of its products."""
    return "tf32" if products_may_round() else "tf32x3"
