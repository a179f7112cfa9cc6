"""Holes on the wire: devices of a cluster, as whoever knows them tells."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from planner_service.contract.base import Message, invalid
from planner_service.contract.quantities import BudgetBytes, Count, SizeBytes

Name = Annotated[str, Field(min_length=1, max_length=200)]
Speed = Annotated[float, Field(strict=True, ge=1e-6, le=1e6, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, ge=1e-6, le=1)]
Money = Annotated[float, Field(strict=True, ge=0, le=1e12, allow_inf_nan=False)]


class TypeNamesRecord(Message):
    """What each scheduler calls a type of device, where it differs from `device`."""

    slurm: Name | None = None
    """GRES type and node feature: `a100`."""
    kubernetes: Name | None = None
    """The node label nvidia.com/gpu.product: `NVIDIA-A100-SXM4-80GB`."""
    ray: Name | None = None
    """accelerator_type: `A100`."""


class HoleRecord(Message):
    """Equal devices of one node, or MIG slices or fractions of them, each free for one process."""

    name: Name
    node: Name | None = None
    """Null: a node of its own."""
    device_kind: Literal["cpu", "cuda"] = "cuda"
    """Not told: cuda, unless the device is called `cpu`, as nodes without a GPU call theirs."""
    device: Annotated[str, Field(max_length=200)] = ""
    """The type of device, as the cluster calls it."""
    names: TypeNamesRecord = TypeNamesRecord()
    memory_total_bytes: BudgetBytes
    """Nominal memory of one device, or of the MIG slice; of a fraction: of the whole device."""
    memory_free_bytes: SizeBytes | None = None
    """What the driver says is free on it now; null: all that the driver leaves."""
    mig_slice: Annotated[str, Field(pattern=r"^[1-7]g\.[0-9]+gb(\+[a-z.0-9]+)?$")] | None = None
    """`1g.10gb` and the like."""
    fraction: Share | None = None
    """Share of the device, of its memory and of its time."""
    relative_speed: Speed | None = None
    """Against the device that `forward_seconds` or the profile is of. Null: 1; compute slices in sevenths
    for a MIG slice; its share for a fraction."""
    hourly_cost: Money | None = None
    """Of one device, in any currency."""
    count: Count = 1
    """So many equal ones in this node."""
    context_bytes: SizeBytes | None = None
    """Null: the request's."""

    @model_validator(mode="before")
    @classmethod
    def _what_is_called_cpu_is_one(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("device") == "cpu":
            return {"device_kind": "cpu", **given}
        return given

    @model_validator(mode="after")
    def _is_a_slice_or_a_fraction(self) -> Self:
        if self.mig_slice is not None and self.fraction is not None:
            raise invalid("fraction", "a hole is a MIG slice or a fraction, not both")
        return self
