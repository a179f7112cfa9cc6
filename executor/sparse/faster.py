"""Is a product with what is kept faster than the dense one? Measured once per size and device.

Leaving columns or rows out costs memory traffic and calls; below some size, or where little is dropped, the
dense product wins, and then it is what runs. Where there are several ways to leave them out (see choice.py),
the fastest is taken. All give the same sums up to rounding. Nothing is timed under
`torch.use_deterministic_algorithms`: what is dropped is left out, by gathered copies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from executor.sparse.choice import candidates
from executor.sparse.gathered import Products
from executor.sparse.timing import decided_once, seconds_to_choose_by


class Fastest(NamedTuple):
    """Of the products that leave out what is dropped."""

    products: Products
    pays: bool
    """Whether they are faster than the dense product."""


@decided_once
def fastest_columns(
    rows: int, columns: int, kept: int, width: int, *, device: torch.device, dtype: torch.dtype
) -> Fastest:
    """Of [rows, columns] @ [columns, width], over `kept` columns alone.

    What is prepared of the second operand is taken as given: it serves many products.
    """
    gradient = torch.zeros(rows, columns, device=device, dtype=dtype)
    weight = torch.zeros(columns, width, device=device, dtype=dtype)
    index = _spread(columns, kept, device)
    ways = candidates(device, dtype)
    functions = [products.through_columns(weight, index) for products in ways]
    ours = [partial(function, gradient) for function in functions]
    return _fastest(ways, ours, lambda: torch.mm(gradient, weight))


@decided_once
def fastest_outer_columns(
    rows: int, columns: int, kept: int, width: int, *, device: torch.device, dtype: torch.dtype
) -> Products:
    """Of [rows, columns]^T @ [rows, width], `kept` columns added to a sum; not compared with a dense product.

    Where there is one way only, nothing is timed.
    """
    ways = candidates(device, dtype)
    if len(ways) == 1:
        return ways[0]
    gradient = torch.zeros(rows, columns, device=device, dtype=dtype)
    inputs = torch.zeros(rows, width, device=device, dtype=dtype)
    total, index = gradient.new_zeros(columns, width), _spread(columns, kept, device)

    def added(products: Products) -> Tensor:
        products.add_columns(total, gradient, inputs, index)
        return total

    seconds = seconds_to_choose_by(*(partial(added, products) for products in ways))
    return ways[seconds.index(min(seconds))]


@decided_once
def fastest_sequences(
    rows: int, kept: int, columns: int, width: int, *, device: torch.device, dtype: torch.dtype
) -> Fastest:
    """Of [rows, columns] @ [columns, width], `kept` rows among zeros."""
    gradient = torch.zeros(rows, columns, device=device, dtype=dtype)
    weight = torch.zeros(columns, width, device=device, dtype=dtype)
    index = _spread(rows, kept, device)
    ways = candidates(device, dtype)
    ours = [partial(products.at_rows, gradient, weight, index) for products in ways]
    return _fastest(ways, ours, lambda: torch.mm(gradient, weight))


@decided_once
def fastest_rows(
    rows: int, kept: int, columns: int, width: int, *, device: torch.device, dtype: torch.dtype
) -> Fastest:
    """Of [rows, columns]^T @ [rows, width], over `kept` rows alone."""
    gradient = torch.zeros(rows, columns, device=device, dtype=dtype)
    inputs = torch.zeros(rows, width, device=device, dtype=dtype)
    index = _spread(rows, kept, device)

    def summed(products: Products) -> Tensor:
        return products.of_rows(gradient, (inputs,), index, None)[0]

    ways = candidates(device, dtype)
    return _fastest(ways, [partial(summed, each) for each in ways], lambda: torch.mm(gradient.t(), inputs))


def _spread(count: int, kept: int, device: torch.device) -> Tensor:
    """`kept` of `count` indices, evenly spread."""
    return torch.arange(kept, device=device) * count // kept


def _fastest(
    ways: Sequence[Products], ours: Sequence[Callable[[], Tensor]], dense: Callable[[], Tensor]
) -> Fastest:
    *our_seconds, dense_seconds = seconds_to_choose_by(*ours, dense)
    least = min(our_seconds)
    return Fastest(ways[our_seconds.index(least)], least < dense_seconds)
