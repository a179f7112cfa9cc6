"""Times of functions that compute the same, taken in turns."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

ROUNDS = 7
CUDA_CALLS = 20
"""Calls per round on a CUDA device, which works on one while the next is being prepared."""


def least_seconds(*functions: Callable[[], Tensor]) -> list[float]:
    """The least time of each over ROUNDS interleaved rounds.

    The least, because whatever else the machine does can only add to a time.
    """
    for function in functions:
        function()
    rounds = [[_seconds(function) for function in functions] for _ in range(ROUNDS)]
    return [min(times) for times in zip(*rounds, strict=True)]


def _seconds(function: Callable[[], Tensor]) -> float:
    begin = time.perf_counter()
    result = function()
    if not result.is_cuda:
        return time.perf_counter() - begin
    for _ in range(CUDA_CALLS - 1):
        function()
    torch.cuda.synchronize(result.device)
    return (time.perf_counter() - begin) / CUDA_CALLS
