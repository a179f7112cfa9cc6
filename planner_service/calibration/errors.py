"""How far the formulas are off, and how far the estimate is: the error before and after calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from planner_service.calibration.estimate import scaled
from planner_service.calibration.stage_ratios import (
    QUANTITIES,
    StageRatios,
    family_ratios,
    pairs_of,
)
from planner_service.memory import Profile


class StageError(NamedTuple):
    """One quantity of one measured segment length, in bytes."""

    segment_steps: int
    quantity: str
    measured_bytes: int
    computed_bytes: int
    """By the formulas alone: before."""
    estimated_bytes: int
    """The formulas times the largest ratio that was measured: after."""


def stage_errors(profile: Profile, alike: Sequence[Profile]) -> list[StageError]:
    """Every quantity of every segment length of `profile`; `alike` are the family's, itself among them."""
    ratios = {row.segment_steps: row for row in family_ratios(alike)}
    return [
        error
        for measured in profile.segments
        if measured.segment_steps in ratios
        if (pairs := pairs_of(profile, measured)) is not None
        for error in _errors(pairs, ratios[measured.segment_steps])
    ]


def _errors(pairs: Sequence[tuple[int, int]], row: StageRatios) -> list[StageError]:
    return [
        StageError(row.segment_steps, quantity, seen, computed, scaled(computed, row.of(quantity)))
        for quantity, (seen, computed) in zip(QUANTITIES, pairs, strict=True)
    ]
