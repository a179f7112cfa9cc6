"""What the words for schedulers ask for: one job on any of some types of devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from planner_service.placement.acceptable import AcceptableType

MEBIBYTE = 2**20


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Bytes are those of one device."""

    types: tuple[AcceptableType, ...]
    """One or more, all of one kind."""
    devices: int
    """In one node."""
    tightest: AcceptableType
    """Its plan runs on every type."""
    request_bytes: int
    """The tightest plan's budget and the largest context."""

    @classmethod
    def of(cls, types: Sequence[AcceptableType], devices: int) -> Self:
        """What runs on every one of `types`, `devices` at a time."""
        tightest = min(types, key=lambda each: each.budget_bytes)
        context_bytes = max(each.smallest.context_bytes for each in types)
        return cls(
            types=tuple(types),
            devices=devices,
            tightest=tightest,
            request_bytes=tightest.budget_bytes + context_bytes,
        )

    @property
    def limit_bytes(self) -> int:
        """Nominal memory from which any device of these types holds it, the driver's share included."""
        return max(each.smallest.nominal_bytes(self.request_bytes) for each in self.types)

    @property
    def on_cpu(self) -> bool:
        """Whether main memory is asked for."""
        return self.types[0].smallest.device_kind == "cpu"

    @property
    def one_device_nodes(self) -> bool:
        """Whether a node's sum of memory is that of a device: no node has two."""
        return all(each.most_per_node == 1 for each in self.types)


def mebibytes(count: int) -> int:
    """Bytes in whole MiB, rounded up."""
    return -(-count // MEBIBYTE)
