"""Times of functions that compute the same, taken in turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

ROUNDS = 7
CUDA_CALLS = 20
"""Calls per round on a CUDA device, which works on one while the next is being prepared."""

Result = TypeVar("Result")


def decided_once(function: Callable[..., Result]) -> Callable[..., Result]:
    """`functools.cache`, apart for `torch.use_deterministic_algorithms`: no time decides anything there."""

    @cache
    def decided(_is_deterministic: bool, *args: Any, **settings: Any) -> Result:
        return function(*args, **settings)

    @wraps(function)
    def decide(*args: Any, **settings: Any) -> Result:
        return decided(torch.are_deterministic_algorithms_enabled(), *args, **settings)

    decide.cache_clear = decided.cache_clear  # type: ignore[attr-defined]
    return decide


def seconds_to_choose_by(*functions: Callable[[], Tensor]) -> list[float]:
    """`least_seconds`; where torch is to be deterministic 0, 1, 2, …, so that every process takes the first:
    two runs that are told apart by nothing but noise in times must not compute two things.
    """
    if torch.are_deterministic_algorithms_enabled():
        return [float(place) for place in range(len(functions))]
    return least_seconds(*functions)


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
