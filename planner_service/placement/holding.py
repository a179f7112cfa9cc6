"""Types of devices that hold so many bytes: for launches whose plan is not to be chosen any more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from planner_service.placement.holes import Hole


def types_that_hold(needed_bytes: int, kind: Literal["cpu", "cuda"], holes: Iterable[Hole]) -> list[Hole]:
    """The smallest hole of every type of that kind whose every device holds `needed_bytes` when nobody else
    is on it; the quickest first, then the least. No fractions: nobody gives out a part of a device by them.
    """
    smallest: dict[tuple[object, ...], Hole] = {}
    for hole in holes:
        known = smallest.get(hole.type_key)
        if is_whole(hole, kind) and (known is None or hole.empty_bytes < known.empty_bytes):
            smallest[hole.type_key] = hole
    found = [hole for hole in smallest.values() if hole.empty_bytes >= needed_bytes]
    return sorted(found, key=lambda hole: (-hole.relative_speed, hole.empty_bytes))


def is_whole(hole: Hole, kind: Literal["cpu", "cuda"]) -> bool:
    """Whether it is a device or a MIG slice of that kind, and no share of one."""
    return hole.device_kind == kind and hole.fraction is None
