"""Measured peaks against projected ones: a margin for where the stages did not add up.

A margin multiplies every byte of a profile. The peak of a schedule is a maximum of sums of those bytes, so
it grows by the same factor at least: a run that measured r times what was projected is covered by a margin
of r, whatever its schedule was. A run whose projection had a margin already counts by what was projected
without it: the store divides by `margin_ratio` of the plan's profile.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from typing import Any, NamedTuple

from planner_service.calibration.coverage import Coverage
from planner_service.calibration.estimate import scaled
from planner_service.chain import Reversal, Stage
from planner_service.memory import LedgerLine, Profile
from planner_service.memory.profile import ProfiledSegments

MOST_RATIO = Fraction(2)
"""A run that measured more than twice its projection is no run of the plan that it names, or was measured
wrongly: stages that do not quite add up come to a few per cent. One such report must not spoil all plans."""


class PeakResidual(NamedTuple):
    """One run: bytes that the training call was projected to add at its peak, and that it added."""

    segment_steps: int
    projected_bytes: int
    measured_bytes: int
    runs: int = 1
    """Itself, and others of that length that measured no more of what was projected, on the same side of
    MOST_RATIO.
    """

    @property
    def ratio(self) -> Fraction:
        """Measured over projected; above 1 the projection fell short."""
        return Fraction(self.measured_bytes, self.projected_bytes)


@dataclass(frozen=True)
class Margin:
    """What the runs of one family at one segment length say."""

    segment_steps: int
    largest_ratio: Fraction
    """Of measured to projected."""
    coverage: Coverage
    set_aside: int = 0
    """Runs beyond MOST_RATIO, which count for nothing else here."""

    @property
    def factor(self) -> Fraction:
        """What projections are multiplied by: never less than 1, since a run need not meet the worst case."""
        return max(Fraction(1), self.largest_ratio)


def margins_of(residuals: Iterable[PeakResidual]) -> dict[int, Margin]:
    """One margin per segment length. Runs that projected nothing are passed over."""
    by_length: dict[int, list[PeakResidual]] = defaultdict(list)
    for residual in residuals:
        if residual.projected_bytes > 0:
            by_length[residual.segment_steps].append(residual)
    return {steps: _margin(steps, found) for steps, found in by_length.items()}


def _margin(segment_steps: int, residuals: Sequence[PeakResidual]) -> Margin:
    seen = [residual for residual in residuals if residual.ratio <= MOST_RATIO]
    largest = max((residual.ratio for residual in seen), default=Fraction(0))
    runs = sum(residual.runs for residual in seen)
    aside = sum(residual.runs for residual in residuals) - runs
    return Margin(segment_steps, largest, Coverage(runs), set_aside=aside)


def with_margins(profile: Profile, margins: Mapping[int, Margin]) -> Profile:
    """The profile with the margin of each segment length on it; the static lines carry the largest of all.

    Runs that stayed within their projection change nothing, not even a plan's name.
    """
    known = [margins[s.segment_steps] for s in profile.segments if s.segment_steps in margins]
    largest = max((margin.factor for margin in known), default=Fraction(1))
    if largest == 1:
        return profile
    return replace(
        profile,
        source=f"{profile.source} with a margin of {float(largest):.6f}",
        margin_ratio=math.nextafter(float(largest * Fraction(profile.margin_ratio or 1)), math.inf),
        input_bytes=scaled(profile.input_bytes, largest),
        input_gradient_bytes=(
            None if profile.input_gradient_bytes is None else scaled(profile.input_gradient_bytes, largest)
        ),
        loss_gradient_bytes=scaled(profile.loss_gradient_bytes, largest),
        static=tuple(_line(line, largest) for line in profile.static),
        segments=tuple(_segments(s, margins.get(s.segment_steps)) for s in profile.segments),
    )


def _line(line: LedgerLine, factor: Fraction) -> LedgerLine:
    if factor == 1:
        return line
    return line._replace(bytes=scaled(line.bytes, factor), exactness="calibrated")


def _segments(segments: ProfiledSegments, margin: Margin | None) -> ProfiledSegments:
    if margin is None or margin.factor == 1:
        return segments
    inner, first, last = (
        None if stage is None else _stage(stage, margin.factor)
        for stage in (segments.inner, segments.first, segments.last)
    )
    return replace(segments, inner=inner or segments.inner, first=first, last=last)


def _stage(stage: Stage, factor: Fraction) -> Stage:
    reversal = stage.reversal
    if reversal is not None:
        reversal = replace(reversal, **_scaled_sizes(reversal, factor))
    return replace(stage, reversal=reversal, **_scaled_sizes(stage, factor))


def _scaled_sizes(part: Stage | Reversal, factor: Fraction) -> dict[str, Any]:
    """Every byte count of `part` times `factor`, by name."""
    names = (field.name for field in fields(part) if field.name.endswith("_bytes"))
    return {name: scaled(size, factor) for name in names if (size := getattr(part, name)) is not None}
