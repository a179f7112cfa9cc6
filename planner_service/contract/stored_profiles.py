"""Profiles that the service keeps, and how true they have been (v1)."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from planner_service.contract.base import Answer
from planner_service.contract.models import Dtype
from planner_service.contract.profile import ProfileRecord


class MarginRecord(Answer):
    """Runs against what was projected, at one segment length: all models of one cell, dtype and device."""

    segment_steps: int
    """The segment length of the runs' plans."""
    runs: int
    largest_ratio: float
    """Of measured to projected peak; 1 or less: no run went beyond."""
    factor: float
    """What projections are multiplied by: the largest ratio, and never less than 1."""
    set_aside_runs: int = 0
    """Further runs, which measured more than twice what was projected: something else is wrong with them, so
    they change no plan. DELETE /v1/measurements/{id} forgets one."""
    coverage_ratio: float
    """At least this share of further runs stays within, if they are like those seen: n / (n + 1)."""


class StageErrorRecord(Answer):
    """One quantity of a measured stage: what was measured, and what is said of it without its own probe."""

    segment_steps: int
    """The segment length of the stage."""
    quantity: str
    measured_bytes: int
    """What the probe measured."""
    computed_bytes: int
    """By the formulas: the error before calibration. For fused kernels they are no bound."""
    estimated_bytes: int
    """From the largest ratios measured, this model's among them: the error after. Never below measured."""


class ProfileSummary(Answer):
    """A kept profile without its stages."""

    id: str
    """Hash of the record: sending it twice stores it once."""
    received_at: datetime
    device_name: str
    torch: str
    cell: str
    implementation: Literal["steps", "fused"]
    dtype: Dtype
    input_size: int
    hidden_size: int
    num_layers: int
    batch_size: int
    sequence_length: int


class StoredProfile(ProfileSummary):
    """A kept profile, with what was learnt about it."""

    profile: ProfileRecord
    """As it was sent."""
    models: int
    """Different models of this cell, dtype and device that were probed."""
    margins: list[MarginRecord]
    """One per segment length at which plans ran; they are part of every plan with this profile."""
    errors: list[StageErrorRecord]
    """Before and after calibration, quantity by quantity."""


class ProfilePage(Answer):
    """Some profiles, the latest first."""

    profiles: list[ProfileSummary]
    next_cursor: str | None = None
    """Pass it as `cursor` for the profiles before these."""
