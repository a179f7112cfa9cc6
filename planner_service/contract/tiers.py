"""Storage tiers on the wire: where stored states may go besides the device, and what a plan did there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Self

from pydantic import Field, StrictBool, model_validator

from planner_service.chain import DEVICE, Tier, TierUse
from planner_service.chain.stage import MAXIMUM_COST
from planner_service.contract.base import Answer, Message, invalid
from planner_service.contract.quantities import BudgetBytes

MOST_TIERS = 4

TransferSeconds = Annotated[float, Field(strict=True, ge=0, le=MAXIMUM_COST, allow_inf_nan=False)]
"""A time of a tier, in the unit of the chain's costs: seconds, where these are seconds."""


class StorageTier(Message):
    """A store beside the device: pinned host memory, a disk."""

    name: str = Field(min_length=1, max_length=64)
    budget_bytes: BudgetBytes
    """Most bytes of states held there at once; of host memory, the pinned bytes."""
    write_seconds_per_byte: TransferSeconds = 0.0
    """Time to move one byte from the device to the tier, in the unit of the plan's costs."""
    read_seconds_per_byte: TransferSeconds = 0.0
    """Time to move one byte from the tier to the device, in the unit of the plan's costs."""
    write_latency_seconds: TransferSeconds = 0.0
    """Fixed time of one write."""
    read_latency_seconds: TransferSeconds = 0.0
    """Fixed time of one read."""
    overlapped: StrictBool = True
    """Whether transfers run beside the computation, on a stream per direction; else it waits for them."""

    @model_validator(mode="after")
    def _has_a_name_of_its_own(self) -> Self:
        if self.name == DEVICE:
            raise invalid("name", f"{DEVICE!r} is the device itself: give the tier another name")
        return self

    def tier(self) -> Tier:
        """The tier as the planner's core knows it."""
        return Tier(**self.model_dump())


class WithTiers(Message):
    """Memory that has tiers besides the device."""

    tiers: list[StorageTier] = Field(default=[], max_length=MOST_TIERS)
    """Where stored states may go besides the device, from fast to slow. A plan by `auto` uses them where
    that is faster, `offload` needs one, other strategies leave them alone."""

    @model_validator(mode="after")
    def _tiers_have_names_of_their_own(self) -> Self:
        names = [tier.name for tier in self.tiers]
        for name in names:
            if names.count(name) > 1:
                raise invalid("tiers", f"{names.count(name)} tiers are called {name!r}")
        return self


def tiers_of(records: Iterable[StorageTier]) -> tuple[Tier, ...]:
    """The tiers as the planner's core knows them, in the order given."""
    return tuple(record.tier() for record in records)


class TierUseRecord(Answer):
    """What a schedule does with one tier."""

    name: str
    budget_bytes: int
    """Bytes allowed there: those of the request."""
    peak_bytes: int
    """Most bytes of states held there at once; of host memory, the pinned bytes."""
    written_bytes: int
    """Bytes moved to it, in all."""
    read_bytes: int
    """Bytes moved back from it, in all."""
    write_count: int
    """States stored there, every time counted."""
    read_count: int
    """States fetched from there, every time counted."""
    write_seconds: float
    """How long its write stream is busy, in the unit of the plan's costs."""
    read_seconds: float
    """How long its read stream is busy, in the unit of the plan's costs."""


def tier_use_records(tiers: Iterable[Tier], uses: Iterable[TierUse]) -> list[TierUseRecord]:
    """What was done with each of `tiers`; `uses` are in the same order."""
    return [
        TierUseRecord(
            name=use.name,
            budget_bytes=tier.budget_bytes,
            peak_bytes=use.peak_bytes,
            written_bytes=use.written_bytes,
            read_bytes=use.read_bytes,
            write_count=use.write_count,
            read_count=use.read_count,
            write_seconds=use.write_seconds,
            read_seconds=use.read_seconds,
        )
        for tier, use in zip(tiers, uses, strict=True)
    ]
