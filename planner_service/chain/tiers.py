"""Storage tiers: where a checkpoint may live besides the device, such as host memory or a disk.

A tier has a budget and two clocks, one per direction. Its transfers either block the compute stream
or overlap with it; an overlapped tier has one copy stream per direction (as a GPU has one copy
engine per direction), and the transfers of one stream run in the order in which they were issued.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planner_service.chain.errors import InvalidChain
from planner_service.chain.stage import check_bytes, check_cost

TIERS_FIELD = "memory.tiers"

DEVICE = "device"
"""The home of a state that is stored nowhere else: no tier may have this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """One storage tier. Times are in the chain's cost unit (seconds on a calibrated chain).

    Raises InvalidChain for an empty name or `device`, a byte count out of range and a negative or
    infinite time.
    """

    name: str
    budget_bytes: int
    """Most bytes of states held at once. For host memory: the pinned bytes."""
    write_seconds_per_byte: float = 0.0
    """Time to move one byte from the device to the tier."""
    read_seconds_per_byte: float = 0.0
    """Time to move one byte from the tier to the device."""
    write_latency_seconds: float = 0.0
    """Fixed time of one write, whatever its size."""
    read_latency_seconds: float = 0.0
    """Fixed time of one read, whatever its size."""
    overlapped: bool = False
    """Whether transfers run next to the compute stream. Otherwise it waits for each of them."""

    def __post_init__(self) -> None:
        if self.name in {"", DEVICE}:
            reason = f"name={self.name!r} of a tier must be neither empty nor {DEVICE!r}"
            raise InvalidChain(reason, field=TIERS_FIELD)
        check_bytes("budget_bytes", self.budget_bytes)
        for direction in ("write", "read"):
            for quantity in (f"{direction}_seconds_per_byte", f"{direction}_latency_seconds"):
                check_cost(quantity, getattr(self, quantity))

    def write_seconds(self, size_bytes: int) -> float:
        """Time of writing a state of `size_bytes` to the tier."""
        return self.write_latency_seconds + self.write_seconds_per_byte * size_bytes

    def read_seconds(self, size_bytes: int) -> float:
        """Time of reading a state of `size_bytes` back to the device."""
        return self.read_latency_seconds + self.read_seconds_per_byte * size_bytes


def check_tiers(tiers: Sequence[Tier]) -> None:
    """Raise InvalidChain when two tiers have one name."""
    names = [tier.name for tier in tiers]
    for name in names:
        if names.count(name) > 1:
            raise InvalidChain(f"{names.count(name)} tiers are called {name!r}", field=TIERS_FIELD)
