"""Measured profiles: the stages of one model at one batch size, as a probe of the executor saw them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from planner_service.chain import (
    InvalidChain,
    PlanningError,
    Stage,
    segment_sizes,
    segmented_chain,
    stage_from_record,
    stage_record,
)
from planner_service.memory.candidate import Candidate, CostUnit, Source, StageSources
from planner_service.memory.ledger import LedgerLine, total_bytes
from planner_service.memory.reversible_cells import ReversibleModel
from planner_service.memory.sparsity import GradientSparsity
from planner_service.memory.workload import LossPlace, Workload


class ProfileMismatch(PlanningError):
    """The profile that came with a request was measured of something else; `differences` says what."""

    field = "profile"

    def __init__(self, differences: Iterable[str]) -> None:
        self.differences = tuple(differences)
        super().__init__(
            f"the profile was measured of another model: {'; '.join(self.differences)}. "
            "Probe this model, or leave the profile out"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (ProfileMismatch, (self.differences,))


class ProfileNeeded(PlanningError):
    """Fused kernels keep and use what only a measurement can tell, and there is none of this model."""

    field = "profile"

    def __init__(self) -> None:
        super().__init__(
            "the bytes of fused kernels are known by measurement only, and no profile matches: "
            "probe the model and send the profile, or plan with implementation 'steps'"
        )


@dataclass(frozen=True)
class ProfiledSegments:
    """The stages of a chain in segments of `segment_steps`; None means like `inner`."""

    segment_steps: int
    last_steps: int
    inner: Stage
    first: Stage | None
    last: Stage | None


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What was measured; costs are in `cost_unit`."""

    source: str
    device: str
    torch: str
    cell: str
    implementation: str
    dtype: str
    forget_bits: int | None = None
    """Of a reversible cell; None sets no limit."""
    coding: str | None = None
    """Of a reversible cell."""
    gradient_sparsity: GradientSparsity | None = None
    """The rule under which backward was measured; None: dense."""
    input_size: int
    hidden_size: int
    num_layers: int
    batch_size: int
    embedding_size: int | None
    head_output_size: int | None
    sequence_length: int
    loss: LossPlace | None
    """Where the loss was; None: not told, and not compared."""
    cost_unit: CostUnit
    margin_ratio: float | None = None
    """What bytes were multiplied by at most, for runs that held more; None: they are as measured."""
    input_bytes: int
    input_gradient_bytes: int | None
    loss_gradient_bytes: int
    static: tuple[LedgerLine, ...]
    segments: tuple[ProfiledSegments, ...]

    def matches(self, workload: Workload) -> bool:
        """Whether this was measured of `workload`."""
        sizes = workload.model.hidden_size, workload.batch_size, workload.sequence_length
        # Sizes tell most profiles apart, and planners ask of thousands of models.
        measured = self.hidden_size, self.batch_size, self.sequence_length
        return measured == sizes and not self.differences(workload)

    def differences(self, workload: Workload) -> list[str]:
        """What `workload` asks for and this profile is not, one text each; empty when it matches."""
        model = workload.model
        asked: dict[str, object] = {
            "device": workload.device,
            "cell": model.cell_kind,
            "implementation": model.implementation,
            "dtype": model.dtype,
            "forget_bits": model.forget_bits if isinstance(model, ReversibleModel) else None,
            "coding": model.coding if isinstance(model, ReversibleModel) else None,
            "input_size": model.input_size,
            "hidden_size": model.hidden_size,
            "num_layers": model.num_layers,
            "embedding_size": model.embedding_size,
            "head_output_size": model.head_output_size,
            "batch_size": workload.batch_size,
            "sequence_length": workload.sequence_length,
            "loss": workload.loss if self.loss else None,
            "gradient_sparsity": workload.gradient_sparsity,
        }
        measured = {name: getattr(self, name) for name in asked}
        measured["device"] = self.device.partition(":")[0]
        return [
            f"{name}={measured[name]} where {value} is asked for"
            for name, value in asked.items()
            if measured[name] != value
        ]


_OPTIONAL: dict[str, Any] = {
    "num_layers": 1,
    "forget_bits": None,
    "coding": None,
    "gradient_sparsity": None,
    "loss": None,
    "cost_unit": "seconds",
    "margin_ratio": None,
    "embedding_size": None,
    "head_output_size": None,
    "input_gradient_bytes": None,
    "loss_gradient_bytes": 0,
    "static": (),
}


def profile_from_record(record: Mapping[str, Any]) -> Profile:
    """The profile in a record as the probe writes it. Raises InvalidChain for a malformed one."""
    try:
        given = {**_OPTIONAL, **record}
        plain: dict[str, Any] = {field.name: given[field.name] for field in fields(Profile)}
        plain["gradient_sparsity"] = _sparsity(given["gradient_sparsity"])
        plain["static"] = tuple(_line(line) for line in given["static"])
        plain["segments"] = tuple(_segments(segments) for segments in given["segments"])
        return Profile(**plain)
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidChain(f"malformed profile: {error!r}", field="profile") from error


def profile_record(profile: Profile) -> dict[str, Any]:
    """The profile as a record; `profile_from_record` takes it back."""
    record: dict[str, Any] = {field.name: getattr(profile, field.name) for field in fields(Profile)}
    sparsity = profile.gradient_sparsity
    record["gradient_sparsity"] = None if sparsity is None else asdict(sparsity)
    record["static"] = [line._asdict() for line in profile.static]
    record["segments"] = [
        {
            "segment_steps": segments.segment_steps,
            "last_steps": segments.last_steps,
            "inner": stage_record(segments.inner),
            "first": None if segments.first is None else stage_record(segments.first),
            "last": None if segments.last is None else stage_record(segments.last),
        }
        for segments in profile.segments
    ]
    return record


def _sparsity(record: Mapping[str, Any] | None) -> GradientSparsity | None:
    return None if record is None else GradientSparsity(**record)


def _line(record: Mapping[str, Any]) -> LedgerLine:
    exactness = record.get("exactness", "calibrated")
    return LedgerLine(record["name"], record["bytes"], record.get("formula", ""), exactness)


def _segments(record: Mapping[str, Any]) -> ProfiledSegments:
    first, last = record.get("first"), record.get("last")
    return ProfiledSegments(
        segment_steps=record["segment_steps"],
        last_steps=record["last_steps"],
        inner=stage_from_record(record["inner"]),
        first=None if first is None else stage_from_record(first),
        last=None if last is None else stage_from_record(last),
    )


def profiled_candidates(workload: Workload, profile: Profile) -> list[Candidate]:
    """One candidate per measured segment length. Raises ProfileMismatch unless the profile matches."""
    differences = profile.differences(workload)
    if differences:
        raise ProfileMismatch(differences)
    return candidates_as_measured(workload, profile)


def candidates_as_measured(workload: Workload, profile: Profile) -> list[Candidate]:
    """The same of the very workload that was measured. Raises ProfileMismatch where the last segment has not
    the steps that are left for it, and InvalidChain when a size exceeds 2**62 bytes.
    """
    return [_candidate(workload, profile, segments) for segments in profile.segments]


def _candidate(workload: Workload, profile: Profile, measured: ProfiledSegments) -> Candidate:
    segments, last_steps = segment_sizes(workload.sequence_length, measured.segment_steps)
    if last_steps != measured.last_steps:
        needed = f"last_steps={measured.last_steps} where {last_steps} is needed"
        raise ProfileMismatch([f"segment_steps={measured.segment_steps}: {needed}"])
    ledger = (*workload.caller_ledger(), *profile.static)
    chain = segmented_chain(
        measured.inner,
        segments,
        first=measured.first,
        last=measured.last,
        input_bytes=profile.input_bytes,
        input_gradient_bytes=profile.input_gradient_bytes,
        loss_gradient_bytes=profile.loss_gradient_bytes,
        static_bytes=total_bytes(ledger),
    )
    formula = f"{profile.source} of segments of {measured.segment_steps} steps, torch {profile.torch}"
    return Candidate(
        segment_steps=measured.segment_steps,
        last_steps=measured.last_steps,
        chain=chain,
        ledger=ledger,
        cost_unit=profile.cost_unit,
        sources=StageSources.all_from(Source(formula, "calibrated")),
        gradient_sparsity=profile.gradient_sparsity,
    )
