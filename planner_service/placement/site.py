"""All holes of a request as arrays, so that a job is answered for all of them at once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner_service.placement.curve import Bytes, Costs
from planner_service.placement.holes import Hole

MOST_BYTES = 2**62


class DeviceType(NamedTuple):
    """Holes that a scheduler cannot tell apart."""

    smallest: Hole
    """The one with the least memory when nobody is on it."""
    device_counts: NDArray[np.int64]
    """Of each hole."""
    most_per_node: int
    """Devices of any type in a node that has this one."""


class TypesOfKind(NamedTuple):
    """Types of devices of one kind."""

    types: tuple[tuple[DeviceType, int], ...]
    """Each with its devices in nodes that have enough of them."""
    empty_bytes: Bytes
    """What the smallest device of each holds when nobody is on it."""


@dataclass(frozen=True, eq=False)
class Site:
    """The holes, the smallest first: among equals the tightest fit has the lowest index."""

    holes: tuple[Hole, ...]
    available_bytes: Bytes
    relative_time: Costs
    """One over the relative speed."""
    hourly_cost: Costs
    """Of one device; infinite where it is not known."""
    device_count: NDArray[np.int64]
    is_cuda: NDArray[np.bool_]

    @classmethod
    def of(cls, holes: Sequence[Hole]) -> Site:
        """The site of these holes."""
        ordered = tuple(sorted(holes, key=lambda hole: hole.available_bytes))
        costs = [inf if hole.hourly_cost is None else hole.hourly_cost for hole in ordered]
        return cls(
            holes=ordered,
            available_bytes=np.array([hole.available_bytes for hole in ordered], dtype=np.int64),
            relative_time=np.array([1 / hole.relative_speed for hole in ordered]),
            hourly_cost=np.array(costs),
            device_count=np.array([min(hole.count, MOST_BYTES) for hole in ordered], dtype=np.int64),
            is_cuda=np.array([hole.device_kind == "cuda" for hole in ordered]),
        )

    def times_of(self, device_kind: str, devices: int) -> Costs:
        """`relative_time`, infinite for holes of another kind and in nodes with fewer devices."""
        key = (device_kind, devices)
        if key not in self._times:
            right = (self.is_cuda == (device_kind == "cuda")) & (self.device_count >= devices)
            self._times[key] = np.where(right, self.relative_time, inf)
        return self._times[key]

    @cached_property
    def _times(self) -> dict[tuple[str, int], Costs]:
        return {}

    def types_for(self, device_kind: str, devices: int) -> TypesOfKind:
        """The types of that kind that some node has enough devices of."""
        key = (device_kind, devices)
        if key not in self._types_of_kind:
            found = [
                (each, int(each.device_counts[each.device_counts >= devices].sum()))
                for each in self.types
                if each.smallest.device_kind == device_kind
            ]
            kept = tuple((each, count) for each, count in found if count)
            empty_bytes = np.array([each.smallest.empty_bytes for each, _ in kept], dtype=np.int64)
            self._types_of_kind[key] = TypesOfKind(kept, empty_bytes)
        return self._types_of_kind[key]

    @cached_property
    def _types_of_kind(self) -> dict[tuple[str, int], TypesOfKind]:
        return {}

    @cached_property
    def types(self) -> tuple[DeviceType, ...]:
        """The types of devices, in the order of their smallest hole."""
        per_node: Counter[str] = Counter()
        groups: defaultdict[tuple[object, ...], list[Hole]] = defaultdict(list)
        for hole in self.holes:
            per_node[hole.node] += hole.count
            groups[hole.type_key].append(hole)
        return tuple(_device_type(holes, per_node) for holes in groups.values())


def _device_type(holes: Sequence[Hole], per_node: Counter[str]) -> DeviceType:
    return DeviceType(
        smallest=min(holes, key=lambda hole: hole.empty_bytes),
        device_counts=np.array([min(hole.count, MOST_BYTES) for hole in holes], dtype=np.int64),
        most_per_node=max(per_node[hole.node] for hole in holes),
    )
