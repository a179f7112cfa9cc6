"""Types of devices that hold a job: what a scheduler can be told before it has chosen a node.

A scheduler hands out whole devices of a type, whichever is free. So a type is acceptable only if the
smallest device that goes by its name holds the job when nobody else is on it. Free bytes of a moment do
not count here, and neither do sums over a node: two devices of 80 GiB are not one of 140.
"""

from __future__ import annotations

from typing import NamedTuple

from planner_service.placement.curve import Curve
from planner_service.placement.holes import Hole
from planner_service.placement.offers import Demand
from planner_service.placement.site import Site


class AcceptableType(NamedTuple):
    """A type of device that holds a job; bytes are those of one device."""

    smallest: Hole
    """The smallest device of this type: its name, its memory, its context."""
    point: int
    """Of the curve: the quickest plan that it holds."""
    budget_bytes: int
    slowdown_ratio: float
    device_count: int
    """Devices of this type, busy or not, in nodes that have enough of them."""
    most_per_node: int
    """Devices of any type in a node that has this one."""

    @property
    def duration_ratio(self) -> float:
        """Time as a multiple of full BPTT's on the device that speeds are relative to."""
        return self.slowdown_ratio / self.smallest.relative_speed

    @property
    def request_bytes(self) -> int:
        """What to set aside on the device: the plan's budget and the process's context."""
        return self.budget_bytes + self.smallest.context_bytes

    @property
    def limit_bytes(self) -> int:
        """The least nominal limit under which it is not killed: of it the driver keeps its share."""
        return self.smallest.nominal_bytes(self.request_bytes)


def acceptable_types(site: Site, demand: Demand, curve: Curve) -> list[AcceptableType]:
    """The types whose every device holds the job within its slowdown, the quickest first."""
    known = site.types_for(demand.device_kind, demand.devices)
    first_allowed = curve.first_point_within(demand.maximum_slowdown_ratio)
    found = [
        AcceptableType(
            smallest=kind.smallest,
            point=point,
            budget_bytes=int(curve.budget_bytes[point]),
            slowdown_ratio=curve.slowdown_at(point),
            device_count=device_count,
            most_per_node=kind.most_per_node,
        )
        for (kind, device_count), point in zip(
            known.types, curve.points_for(known.empty_bytes).tolist(), strict=True
        )
        if point >= first_allowed
    ]
    return sorted(
        found, key=lambda each: (each.duration_ratio, each.smallest.memory_total_bytes, each.smallest.device)
    )
