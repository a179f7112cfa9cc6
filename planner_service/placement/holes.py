"""A hole: memory of a device that a job might be put into.

Three things lie between a device's nominal memory and what training may use of it: the driver keeps a
share for itself (3 to 4 % on data-center GPUs), every process has a context outside PyTorch's allocator (100
to 500 MB), and somebody else may be there already. Enforcers that count nominal memory charge the first two
to the job, so a limit is more than a request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal, NamedTuple

DEFAULT_DRIVER_RESERVE_RATIO = 0.04
DEFAULT_CONTEXT_BYTES = 512 * 2**20
GPU_COMPUTE_SLICES = 7
"""Of a GPU that can be cut into MIG slices."""

_MIG_SLICE = re.compile(r"(\d)g\.\d+gb(\+[a-z.0-9]+)?")


class TypeNames(NamedTuple):
    """What each scheduler calls a type of device; None where it has no name there."""

    slurm: str | None = None
    """GRES type and node feature: `a100`."""
    kubernetes: str | None = None
    """The node label `nvidia.com/gpu.product`: `NVIDIA-A100-SXM4-80GB`."""
    ray: str | None = None
    """`accelerator_type`: `A100`."""


NO_NAMES = TypeNames()


@dataclass(frozen=True, kw_only=True)
class Hole:
    """`count` equal devices of one node, or slices or fractions of them, each free for one process."""

    name: str
    node: str
    device_kind: Literal["cpu", "cuda"] = "cuda"
    device: str = ""
    """The type, as the cluster calls it."""
    names: TypeNames = NO_NAMES
    memory_total_bytes: int
    """Nominal memory of the device, or of the MIG slice; of a fraction: of the whole device."""
    memory_free_bytes: int | None = None
    """What the driver says is free now; None: all that the driver leaves."""
    mig_slice: str | None = None
    """`1g.10gb` and the like."""
    fraction: float | None = None
    """Share of the device, of its memory and of its time."""
    given_speed: float | None = None
    """Against the device that times are known of; None: see `relative_speed`."""
    hourly_cost: float | None = None
    """Of one device, in any currency."""
    count: int = 1
    context_bytes: int = DEFAULT_CONTEXT_BYTES
    driver_reserve_ratio: float = DEFAULT_DRIVER_RESERVE_RATIO

    @property
    def share(self) -> float:
        """Of the device's memory that is this hole's."""
        return 1.0 if self.fraction is None else self.fraction

    @property
    def reserve_bytes(self) -> int:
        """What the driver keeps, this hole's share of it, in bytes. Main memory has no such driver."""
        if self.device_kind == "cpu":
            return 0
        kept, whole = _as_written(self.driver_reserve_ratio)
        part, parts = _as_written(self.share)
        return -(-self.memory_total_bytes * kept * part // (whole * parts))

    @property
    def whole_bytes(self) -> int:
        """What a process can use when nobody else is there, its context included, in bytes."""
        part, parts = _as_written(self.share)
        return max(0, self.memory_total_bytes * part // parts - self.reserve_bytes)

    def nominal_bytes(self, usable_bytes: int) -> int:
        """Nominal memory of which so much is left when the driver has taken its share, in bytes."""
        if self.device_kind == "cpu":
            return usable_bytes
        return nominal_bytes(usable_bytes, self.driver_reserve_ratio)

    @property
    def empty_bytes(self) -> int:
        """What training may hold when nobody else is there, in bytes."""
        return self.whole_bytes - self.context_bytes

    @property
    def available_bytes(self) -> int:
        """What training may hold now: free, less the context, in bytes; negative when that does not fit."""
        free = self.whole_bytes
        if self.memory_free_bytes is not None:
            free = min(free, self.memory_free_bytes)
        return free - self.context_bytes

    @property
    def relative_speed(self) -> float:
        """As given; else 1 for a device, its compute slices in sevenths for a MIG slice, and its share for
        a fraction, which others may use up.
        """
        if self.given_speed is not None:
            return self.given_speed
        match = _MIG_SLICE.match(self.mig_slice or "")
        slices = 1.0 if match is None else int(match[1]) / GPU_COMPUTE_SLICES
        return slices * self.share

    @property
    def type_key(self) -> tuple[object, ...]:
        """Equal for holes that a scheduler cannot tell apart."""
        return (self.device_kind, self.device, self.names, self.mig_slice, self.fraction)


def nominal_bytes(usable_bytes: int, driver_reserve_ratio: float = DEFAULT_DRIVER_RESERVE_RATIO) -> int:
    """The least nominal memory of a GPU of which so much is left when the driver has its share, in bytes."""
    kept, whole = _as_written(driver_reserve_ratio)
    return -(-usable_bytes * whole // (whole - kept))


@lru_cache
def _as_written(ratio: float) -> tuple[int, int]:
    """0.04 as 1 and 25: products with bytes are then exact, and what was written is what counts."""
    return Fraction(repr(ratio)).as_integer_ratio()


def is_mig_slice(name: str) -> bool:
    """Whether a type's name is that of a MIG profile: `1g.10gb`, `1g.10gb+me`."""
    return _MIG_SLICE.fullmatch(name) is not None
