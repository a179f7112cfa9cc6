"""A memory ledger: what is held, item by item, each with its formula and how sure it is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

Exactness = Literal["exact", "bound", "calibrated"]
"""exact: follows from the request alone; bound: never exceeded; calibrated: measured."""


class LedgerLine(NamedTuple):
    """One item of a ledger."""

    name: str
    bytes: int
    formula: str
    """How `bytes` comes about, for people."""
    exactness: Exactness


def total_bytes(lines: Iterable[LedgerLine]) -> int:
    """Sum of the lines, in bytes."""
    return sum(line.bytes for line in lines)
