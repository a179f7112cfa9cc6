"""A profile of a model that nobody measured, from ratios measured of models of other sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from planner_service.calibration.stage_ratios import (
    STAGE_QUANTITIES,
    StageRatios,
    computed_call_bytes,
    computed_stage,
)
from planner_service.chain import MAXIMUM_BYTES, Stage, segment_sizes
from planner_service.memory import LedgerLine, Profile, Workload, total_bytes
from planner_service.memory.profile import ProfiledSegments
from planner_service.memory.steps import StepBytes


def estimated_profile(workload: Workload, ratios: Sequence[StageRatios], *, like: Profile) -> Profile | None:
    """The profile of `workload` at the segment lengths of `ratios`; None when none of them is short enough.

    Every byte count is the formulas' times the largest ratio that was measured, rounded up. Costs are
    counted, not measured: forward passes of a step. `like` is one of the measured profiles.
    """
    usable = [row for row in ratios if row.segment_steps <= workload.sequence_length]
    if not usable:
        return None
    model = workload.model
    worst = min(usable, key=lambda row: row.coverage.ratio)
    state_bytes = StepBytes(workload).state
    return replace(
        like,
        source=f"calibration ({worst.coverage} models)",
        input_size=model.input_size,
        hidden_size=model.hidden_size,
        num_layers=model.num_layers,
        batch_size=workload.batch_size,
        embedding_size=model.embedding_size,
        head_output_size=model.head_output_size,
        sequence_length=workload.sequence_length,
        loss=workload.loss,
        cost_unit="forward",
        input_bytes=state_bytes,
        input_gradient_bytes=state_bytes,
        loss_gradient_bytes=0,
        static=_static(workload, usable),
        segments=tuple(_segments(workload, row) for row in usable),
    )


def _static(workload: Workload, ratios: Sequence[StageRatios]) -> tuple[LedgerLine, ...]:
    """The formulas' lines as they are, and what calls held beyond them."""
    lines = workload.call_ledger()
    ratio = max(row.of("call_bytes") for row in ratios)
    beyond = max(0, scaled(computed_call_bytes(workload), ratio) - total_bytes(lines))
    formula = f"{float(ratio):.4f} x {computed_call_bytes(workload)} B, the largest that was measured"
    return (*lines, LedgerLine("final state and the call's scalars", beyond, formula, "calibrated"))


def _segments(workload: Workload, ratios: StageRatios) -> ProfiledSegments:
    _, last_steps = segment_sizes(workload.sequence_length, ratios.segment_steps)
    inner = scaled_stage(computed_stage(workload, ratios.segment_steps), ratios)
    return ProfiledSegments(
        segment_steps=ratios.segment_steps,
        last_steps=last_steps,
        inner=inner,
        first=None,
        last=_cheaper(inner, last_steps, ratios.segment_steps),
    )


def _cheaper(stage: Stage, steps: int, segment_steps: int) -> Stage:
    """A shorter segment: less time, and no more bytes than a whole one."""
    share = steps / segment_steps
    return replace(
        stage,
        forward_cost=stage.forward_cost * share,
        taped_forward_cost=stage.taped_forward_cost * share,
        backward_cost=stage.backward_cost * share,
    )


def scaled_stage(stage: Stage, ratios: StageRatios) -> Stage:
    """The stage with its byte counts times the ratios, rounded up; a tape holds its output state at least."""
    sizes: dict[str, Any] = {name: scaled(getattr(stage, name), ratios.of(name)) for name in STAGE_QUANTITIES}
    return replace(stage, **sizes)


def scaled(size_bytes: int, ratio: Fraction) -> int:
    """`size_bytes` x `ratio`, rounded up: exact, for a ratio of whole numbers; no more than a chain can hold.

    What is cut off is beyond any device: its plans are refused as too large, and not as no chain at all.
    """
    return min(math.ceil(size_bytes * ratio), MAXIMUM_BYTES)
