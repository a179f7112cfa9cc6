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
    """For each of `count` segments the sum of what was made, less that of the way back, and its size: the sum
    of absolute values. 16 bytes a segment.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._noted: Tensor | None = None
        """[2, count]: sums and sizes."""
        self._eps = 0.0

    def note(self, index: int, result: Tensor) -> None:
        """What segment `index` made on the way forward."""
        if self._noted is None:
            self._noted = torch.zeros(2, self._count, dtype=torch.float64, device=result.device)
        real = _real(result)
        self._eps = torch.finfo(real.dtype).eps
        self._noted[0, index] = real.sum()
        self._noted[1, index] = torch.linalg.vector_norm(real, ord=1)

    def note_again(self, index: int, result: Tensor) -> None:
        """What it makes on the way back."""
        assert self._noted is not None  # noqa: S101 - it was noted on the way forward
        self._noted[0, index] -= _real(result).sum()

    def check(self) -> None:
        """Raise ReplayError unless both are the same but for rounding: under `no_grad`, as on the way
        forward, torch may take other kernels. Where there was no number there is nothing to compare.

        Rounding is told by the largest size, not by the sums: those of normalised outputs are rounding alone.
        """
        if self._noted is None:
            return
        differences, sizes = self._noted
        if bool((differences.abs() > sizes.nan_to_num(posinf=0.0).max() * math.sqrt(self._eps)).any()):
            raise ReplayError(
                "a module inside the segments did not make the same of a segment on the way back: what it "
                "keeps from call to call must be a buffer that is registered; numbers that count calls, "
                "iterators, and random numbers of hidden streams belong into the inputs or the targets (if "
                "another thread drew random numbers, give that one a torch.Generator of its own)"
            )


def _real(result: Tensor) -> Tensor:
    """As numbers whose sums need no copy, unless they are integers."""
    kept = result.detach()
    if kept.is_complex():
        return torch.view_as_real(kept)
    return kept if kept.is_floating_point() else kept.to(torch.get_default_dtype())


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
