"""Measured stages against the formulas of `memory`: how much more or less torch really takes.

The formulas grow with the sizes of a model as its tensors do, so their ratio to what was measured changes
little from one size to the next; its largest value over the measured models is what an estimate uses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import get_args

from planner_service.calibration.coverage import Coverage
from planner_service.chain import InvalidChain, Stage
from planner_service.memory import Profile, RecurrentModel, Workload, total_bytes
from planner_service.memory.cells import CELLS, ReversibleKind
from planner_service.memory.profile import ProfiledSegments
from planner_service.memory.steps import StepBytes, segment_stage

STAGE_QUANTITIES = (
    "state_bytes",
    "tape_bytes",
    "forward_workspace_bytes",
    "taped_forward_workspace_bytes",
    "backward_workspace_bytes",
)
QUANTITIES = (*STAGE_QUANTITIES, "call_bytes")
"""Of a stage; and what the call holds throughout, besides its chain."""

PLAIN_CELLS = frozenset(CELLS) - frozenset(get_args(ReversibleKind))
"""Those that `computed_stage` counts."""


@dataclass(frozen=True)
class StageRatios:
    """The largest ratios of measured to computed bytes, over the models measured at one segment length."""

    segment_steps: int
    largest: tuple[Fraction, ...]
    """In the order of QUANTITIES."""
    models: int
    """Different models that were measured."""

    @property
    def coverage(self) -> Coverage:
        """How sure it is that a further model lies within all of them."""
        return Coverage(self.models, len(QUANTITIES))

    def of(self, quantity: str) -> Fraction:
        """The largest ratio of that quantity."""
        return self.largest[QUANTITIES.index(quantity)]


def stage_ratios(profiles: Iterable[Profile], segment_steps: int) -> StageRatios | None:
    """The ratios of one family at one segment length; None when no profile measured it.

    The profiles are of one cell, implementation, dtype and device. Of several profiles of the same model
    all count for the ratios and one for the coverage.
    """
    rows: list[tuple[Fraction, ...]] = []
    models = set()
    for profile in profiles:
        measured = next((s for s in profile.segments if s.segment_steps == segment_steps), None)
        row = None if measured is None else _ratios(profile, measured)
        if row is not None:
            rows.append(row)
            models.add(workload_of(profile))
    if not rows:
        return None
    return StageRatios(segment_steps, tuple(map(max, zip(*rows, strict=True))), len(models))


def family_ratios(profiles: Sequence[Profile]) -> list[StageRatios]:
    """The ratios at every segment length that was measured, the shortest first."""
    lengths = sorted({s.segment_steps for profile in profiles for s in profile.segments})
    rows = [stage_ratios(profiles, steps) for steps in lengths]
    return [row for row in rows if row is not None]


def workload_of(profile: Profile) -> Workload:
    """What was probed; the optimizer does not matter to the call's own bytes."""
    return Workload(
        model=RecurrentModel(
            cell_kind=profile.cell,  # type: ignore[arg-type]
            input_size=profile.input_size,
            hidden_size=profile.hidden_size,
            num_layers=profile.num_layers,
            dtype=profile.dtype,  # type: ignore[arg-type]
            implementation=profile.implementation,  # type: ignore[arg-type]
            embedding_size=profile.embedding_size,
            head_output_size=profile.head_output_size,
        ),
        sequence_length=profile.sequence_length,
        batch_size=profile.batch_size,
        optimizer="sgd",
        loss=profile.loss or ("outside" if profile.head_output_size is None else "inside"),
        device="cuda" if profile.device.startswith("cuda") else "cpu",
        gradient_sparsity=profile.gradient_sparsity,
    )


def computed_stage(workload: Workload, segment_steps: int) -> Stage:
    """The stage by the formulas: the reference of the ratios. For fused kernels it is no bound."""
    return segment_stage(workload, StepBytes(workload), segment_steps)


def computed_call_bytes(workload: Workload) -> int:
    """The call's own lines by the formulas, and one state: the final one is handed back."""
    return total_bytes(workload.call_ledger()) + StepBytes(workload).state


def _ratios(profile: Profile, measured: ProfiledSegments) -> tuple[Fraction, ...] | None:
    """One profile's ratios; None where a formula gives nothing to compare with, or is that of other cells:
    reversible and sparse ones are counted in ways of their own.
    """
    if profile.cell not in PLAIN_CELLS or profile.gradient_sparsity is not None:
        return None
    pairs = pairs_of(profile, measured)
    if pairs is None or any(computed == 0 for _, computed in pairs):
        return None
    return tuple(Fraction(seen, computed) for seen, computed in pairs)


def pairs_of(profile: Profile, measured: ProfiledSegments) -> list[tuple[int, int]] | None:
    """Measured and computed bytes in the order of QUANTITIES; the largest stage counts. None for a model
    beyond what can be counted: it says nothing of its likes, and must not keep them from being planned.
    """
    workload = workload_of(profile)
    try:
        reference = computed_stage(workload, measured.segment_steps)
    except InvalidChain:
        return None
    call_bytes = computed_call_bytes(workload)
    stages = _stages(measured)
    pairs = [
        (max(getattr(stage, name) for stage in stages), getattr(reference, name)) for name in STAGE_QUANTITIES
    ]
    return [*pairs, (total_bytes(profile.static), call_bytes)]


def _stages(measured: ProfiledSegments) -> Sequence[Stage]:
    """The distinct stages of a chain; the last one may be shorter, and then it takes no more."""
    found = (measured.inner, measured.first, measured.last)
    return [stage for stage in found if stage is not None]
