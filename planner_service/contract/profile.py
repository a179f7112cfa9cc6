"""A measured profile as it travels: the record that the executor's probe writes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from planner_service.contract.base import Message
from planner_service.contract.models import Dtype
from planner_service.contract.quantities import Count, SizeBytes
from planner_service.contract.reversible import Coding, ForgetBits, ReversibleKind
from planner_service.contract.sparsity import GradientSparsity
from planner_service.contract.stages import StageRecord
from planner_service.contract.texts import StorableText

Exactness = Literal["exact", "bound", "calibrated"]


class LedgerLineRecord(Message):
    """One item of a memory ledger: what, how many bytes, by which formula, how sure."""

    name: str
    bytes: SizeBytes
    formula: str = ""
    exactness: Exactness = "calibrated"


class SegmentRecord(Message):
    """The stages of a chain whose segments are `segment_steps` long, as they were measured."""

    segment_steps: Count
    """k: steps per segment."""
    last_steps: Count
    """Steps of the last segment, which may be shorter."""
    inner: StageRecord
    first: StageRecord | None = None
    """Null: like inner."""
    last: StageRecord | None = None
    """Null: like inner."""


class ProfileRecord(Message):
    """What a probe measured of one model at one batch size."""

    source: StorableText = "probe"
    device: StorableText
    """As torch names it: cpu, cuda:0."""
    device_name: StorableText | None = Field(
        default=None, min_length=1, max_length=200, exclude_if=lambda name: name is None
    )
    """What the device is: the GPU's name. Null: what `device` says."""
    torch: StorableText
    cell: Literal["lstm", "gru", "rnn"] | ReversibleKind
    implementation: Literal["steps", "fused"]
    dtype: Dtype
    forget_bits: ForgetBits | None = Field(default=None, exclude_if=lambda given: given is None)
    """Of a reversible cell; null sets no limit."""
    coding: Coding | None = Field(default=None, exclude_if=lambda given: given is None)
    """Of a reversible cell: how its lost bits are archived."""
    gradient_sparsity: GradientSparsity | None = Field(default=None, exclude_if=lambda given: given is None)
    """The rule under which backward was measured; null: dense."""
    input_size: Count
    hidden_size: Count
    num_layers: Count = 1
    batch_size: Count
    embedding_size: Count | None = None
    """Rows of the embedding table, null without one."""
    head_output_size: Count | None = None
    sequence_length: Count
    loss: Literal["inside", "outside"] | None = None
    """Where the loss was while it was measured; null: not told, and not compared."""
    cost_unit: Literal["seconds", "forward"] = "seconds"
    """forward: only the bytes were measured; costs are counted in forward passes of a step."""
    margin_ratio: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = Field(
        default=None, exclude_if=lambda given: given is None
    )
    """What the service multiplied the bytes by, at most, for runs that held more than was projected."""
    input_bytes: SizeBytes
    """The initial state x_0."""
    input_gradient_bytes: SizeBytes | None = None
    """The gradient of x_0; null means as large as x_0."""
    loss_gradient_bytes: SizeBytes = 0
    """The gradient of the last state that comes from outside."""
    static: list[LedgerLineRecord] = Field(default=[], max_length=1000, fail_fast=True)
    segments: list[SegmentRecord] = Field(min_length=1, max_length=1000, fail_fast=True)
