"""Is a smaller product on gathered operands faster than the dense one? Measured once per size and device.

Gathering costs memory traffic and a call; below some size, or where little is dropped, the dense product
wins, and then it is what runs. Both give the same sums up to rounding.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

ROUNDS = 7


@cache
def columns_pay(
    rows: int, columns: int, kept: int, width: int, *, device: torch.device, dtype: torch.dtype
) -> bool:
    """Of [rows, columns] @ [columns, width]: whether `kept` gathered columns are faster than all of them.

    The gathered rows of the second operand are taken as given: they are gathered once for many products.
    """
    gradient = torch.zeros(rows, columns, device=device, dtype=dtype)
    weight = torch.zeros(columns, width, device=device, dtype=dtype)
    index = _spread(columns, kept, device)
    gathered = weight.index_select(0, index)
    return _is_faster(
        lambda: torch.mm(gradient.index_select(1, index), gathered), lambda: torch.mm(gradient, weight)
    )


@cache
def sequences_pay(
    rows: int, kept: int, columns: int, width: int, *, device: torch.device, dtype: torch.dtype
) -> bool:
    """Of [rows, columns] @ [columns, width]: if `kept` gathered rows, put back among zeros, are faster."""
    gradient = torch.zeros(rows, columns, device=device, dtype=dtype)
    weight = torch.zeros(columns, width, device=device, dtype=dtype)
    index = _spread(rows, kept, device)

    def gathered() -> Tensor:
        product = torch.mm(gradient.index_select(0, index), weight)
        return gradient.new_zeros(rows, width).index_copy_(0, index, product)

    return _is_faster(gathered, lambda: torch.mm(gradient, weight))


@cache
def rows_pay(
    rows: int, kept: int, columns: int, width: int, *, device: torch.device, dtype: torch.dtype
) -> bool:
    """Of [rows, columns]^T @ [rows, width]: whether `kept` gathered rows are faster than all of them."""
    gradient = torch.zeros(rows, columns, device=device, dtype=dtype)
    inputs = torch.zeros(rows, width, device=device, dtype=dtype)
    index = _spread(rows, kept, device)
    return _is_faster(
        lambda: torch.mm(gradient.index_select(0, index).t(), inputs.index_select(0, index)),
        lambda: torch.mm(gradient.t(), inputs),
    )


def _spread(count: int, kept: int, device: torch.device) -> Tensor:
    """`kept` of `count` indices, evenly spread."""
    return torch.arange(kept, device=device) * count // kept


def _is_faster(ours: Callable[[], Tensor], theirs: Callable[[], Tensor]) -> bool:
    our_seconds, their_seconds = least_seconds(ours, theirs)
    return our_seconds < their_seconds


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
    if result.is_cuda:
        torch.cuda.synchronize(result.device)
    return time.perf_counter() - begin
