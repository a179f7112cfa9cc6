"""What a module made of each segment, told by a number: the way back must make the same.

A module that counts its calls, or draws from a stream that nobody knows of, makes something else there, and
the gradient would be that of another loss.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from executor.errors import ReplayError, UnsupportedOutput


class Made:
    """A sum for each of `count` segments, 8 bytes each, less what the way back makes."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._sums: Tensor | None = None
        self._largest: Tensor | None = None
        self._eps = 0.0

    def note(self, index: int, result: Tensor) -> None:
        """What segment `index` made on the way forward."""
        if self._sums is None:
            self._sums = torch.zeros(self._count, dtype=torch.float64, device=result.device)
        kind = result.dtype if result.dtype.is_floating_point else torch.get_default_dtype()
        self._eps = torch.finfo(kind).eps
        self._sums[index] = _sum_of(result)

    def note_again(self, index: int, result: Tensor) -> None:
        """What it makes on the way back."""
        assert self._sums is not None  # noqa: S101 - it was noted on the way forward
        if self._largest is None:
            self._largest = self._sums.abs().nan_to_num(posinf=0.0).max()
        self._sums[index] -= _sum_of(result)

    def check(self) -> None:
        """Raise ReplayError unless both are the same but for rounding: under `no_grad`, as on the way
        forward, torch may take other kernels. Where there was no number there is nothing to compare.
        """
        if self._sums is None or self._largest is None:
            return
        if bool((self._sums.abs() > self._largest * math.sqrt(self._eps)).any()):
            raise ReplayError(
                "a module inside the segments did not make the same of a segment on the way back: what it "
                "keeps from call to call must be a buffer that is registered; numbers that count calls, "
                "iterators, and random numbers of hidden streams belong into the inputs or the targets"
            )


def _sum_of(result: Tensor) -> Tensor:
    real = torch.view_as_real(result) if result.is_complex() else result
    return real.detach().sum(dtype=torch.float64)


def require_stackable(result: Tensor, steps: int) -> None:
    """Raise UnsupportedOutput for what cannot be put together along time, or would be repeated to fit."""
    if not result.dim() or len(result) != steps:
        raise UnsupportedOutput(
            f"a segment of {steps} steps must put out [{steps}, …] to be stacked, not {list(result.shape)}"
        )


def require_addable(result: Tensor, total: Tensor) -> None:
    """Raise UnsupportedOutput for what cannot be added up: it would be repeated for those before it."""
    if result.shape != total.shape:
        raise UnsupportedOutput(
            f"outputs to be added up must agree in shape: {list(result.shape)} after {list(total.shape)}; "
            "return one number, the sum over the segment's steps"
        )
