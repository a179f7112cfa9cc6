"""What a worker reports of one training run, and how the service hands it back (v1)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, computed_field, model_validator

from planner_service.contract.further import FurtherValue
from planner_service.contract.texts import Name, StorableText

Bytes = Annotated[int, Field(strict=True, ge=0, le=2**62)]
Iterations = Annotated[int, Field(strict=True, ge=1, le=2**62)]
Seconds = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
_UNSAID: dict[str, Any] = {"exclude_if": lambda value: value is None}
"""Left out where it is not told: reports that were sent before keep their ids."""
Kind = Annotated[StorableText, Field(min_length=1, max_length=40)]


class GradientCheck(BaseModel):
    """Gradients under the plan against plain full BPTT, at a length where both fit."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, FurtherValue]

    length: Annotated[int, Field(strict=True, ge=1, description="Steps of the compared sequence.")]
    largest_difference: Annotated[
        float,
        Field(
            strict=True, ge=0, allow_inf_nan=False, description="Largest absolute difference of any element."
        ),
    ]
    passed: Annotated[bool, Field(strict=True)]


class MeasurementReport(BaseModel):
    """One training run under a plan. Further fields are kept as they are."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, FurtherValue]

    job: Annotated[Name, Field(description="The job's name.")]
    plan_id: Annotated[
        Annotated[StorableText, Field(max_length=200)] | None,
        Field(description="The plan's id, when a service made it."),
    ] = None
    budget_bytes: Annotated[int, Field(strict=True, ge=1, le=2**62, description="Bytes allowed.")]
    projected_peak_bytes: Annotated[Bytes, Field(description="The plan's upper bound.")]
    measured_peak_bytes: Annotated[Bytes, Field(description="The most bytes that the worker saw live.")]
    archived_bytes: Annotated[
        Bytes | None,
        Field(
            description="The most that the archives of reversible layers held of lost bits, exactly: of what "
            "the plan's ledger bounds. Part of the measured peak.",
            **_UNSAID,
        ),
    ] = None
    seconds_per_iteration: Seconds
    iterations: Iterations
    losses: Annotated[
        list[Annotated[float, Field(strict=True, allow_inf_nan=False)] | None],
        Field(
            max_length=1_000_000,
            fail_fast=True,
            description="Loss of every iteration, or of every `losses_every`-th; null where not finite.",
        ),
    ] = []
    losses_every: Annotated[
        Iterations | None,
        Field(description="Of how many iterations `losses` has one; not told: of each.", **_UNSAID),
    ] = None
    gradient_check: GradientCheck | None = None
    cell: Annotated[Kind | None, Field(description="The model's cell: lstm, gru, rnn.", **_UNSAID)] = None
    implementation: Annotated[Kind | None, Field(description="steps or fused.", **_UNSAID)] = None
    dtype: Annotated[Kind | None, Field(**_UNSAID)] = None
    segment_steps: Annotated[
        Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)] | None,
        Field(description="Of the plan. With the three before: what the run calibrates.", **_UNSAID),
    ] = None
    exact_gradient: Annotated[
        Annotated[bool, Field(strict=True)] | None,
        Field(
            description="False: it trained with another gradient than that of full BPTT, by other kernels, "
            "and calibrates nothing.",
            **_UNSAID,
        ),
    ] = None
    torch: Annotated[Name, Field(description="Version of PyTorch.")]
    device: Annotated[Name, Field(description="What trained: `cpu`, or the GPU's name.")]


class Measurement(MeasurementReport):
    """A report as the service keeps it."""

    id: Annotated[str, Field(description="Hash of the report: sending it twice stores it once.")]
    received_at: datetime

    @model_validator(mode="before")
    @classmethod
    def _no_further_field(cls, fields: Any) -> Any:
        """What is computed comes back to whoever reads an answer, and is nothing that the report added."""
        if not isinstance(fields, dict):
            return fields
        return {name: value for name, value in fields.items() if name != "utilization_ratio"}

    @computed_field(description="measured_peak_bytes / budget_bytes.")  # type: ignore[prop-decorator]
    @property
    def utilization_ratio(self) -> float:
        """Measured peak over budget; above 1 the promise was broken."""
        return self.measured_peak_bytes / self.budget_bytes


class MeasurementPage(BaseModel):
    """Some measurements, the latest first."""

    measurements: list[Measurement]
    next_cursor: Annotated[
        str | None, Field(description="Pass it as `cursor` for the measurements before these.")
    ] = None
