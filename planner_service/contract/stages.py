"""Stages and chains as they are written in a request (docs/memory_model.md)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from planner_service.chain import Chain, PlanningError, Reversal, Stage, StageRun, merge_runs
from planner_service.contract.base import Message
from planner_service.contract.quantities import Cost, Count, SizeBytes

CONFIG = ConfigDict(extra="forbid", use_attribute_docstrings=True)
MOST_RUNS = 100_000
"""Runs of equal stages that a chain may have; their number is not limited, only their variety."""


class TooManyStages(PlanningError):
    """A chain whose stages differ too often to be planned in a few seconds."""

    field = "model.stages"

    def __init__(self, *, entry_count: int) -> None:
        self.entry_count = entry_count
        self.most_runs = MOST_RUNS
        super().__init__(
            f"the {entry_count} entries make more than {MOST_RUNS} runs of equal stages: join neighbouring "
            "stages, or round their costs and sizes so that neighbours become equal"
        )


@dataclass(config=CONFIG, frozen=True, slots=True, kw_only=True)
class ReversalRecord:
    """What it takes to undo a stage: to compute its input state from its output state and archived bits."""

    archive_bytes: SizeBytes
    """The most that the bits which the stage loses can take."""
    undo_cost: Cost
    """Undoing the stage, which makes its tape, and reversing it."""
    undo_workspace_bytes: SizeBytes = 0
    """Temporary bytes meanwhile, the tape included, beyond both states and gradients."""
    archive_cost: Cost | None = Field(default=None, exclude_if=lambda given: given is None)
    """Running the stage and keeping what is needed to undo it; null means as an advance."""
    archive_workspace_bytes: SizeBytes | None = Field(default=None, exclude_if=lambda given: given is None)
    """Temporary bytes meanwhile, beyond both states and what is kept; null means as in an advance."""

    def reversal(self) -> Reversal:
        """The reversal as the planner's core knows it."""
        return Reversal(
            archive_bytes=self.archive_bytes,
            undo_cost=self.undo_cost,
            undo_workspace_bytes=self.undo_workspace_bytes,
            archive_cost=self.archive_cost,
            archive_workspace_bytes=self.archive_workspace_bytes,
        )


@dataclass(config=CONFIG, frozen=True, slots=True, kw_only=True)
class StageRecord:
    """Costs and sizes of one stage, which turns one state into the next."""

    # A slotted dataclass and no model: a request may hold a million of them. Descriptions are in the types,
    # for those below a field are not handed on to StageRunRecord.

    forward_cost: Annotated[Cost, Field(description="Running it without a tape (an advance), in any unit.")]
    taped_forward_cost: Annotated[Cost, Field(description="Running it with a tape, in the same unit.")]
    backward_cost: Annotated[Cost, Field(description="Reversing it, in the same unit.")]
    state_bytes: Annotated[SizeBytes, Field(description="Its output state.")]
    tape_bytes: Annotated[
        SizeBytes,
        Field(
            description="What autograd keeps of it when it is taped, beyond its input state; its output "
            "state is part of it."
        ),
    ]
    forward_workspace_bytes: Annotated[
        SizeBytes, Field(description="Temporary bytes while it is advanced, beyond its output state.")
    ] = 0
    taped_forward_workspace_bytes: Annotated[
        SizeBytes, Field(description="Temporary bytes while it is taped, beyond its tape.")
    ] = 0
    backward_workspace_bytes: Annotated[
        SizeBytes,
        Field(description="Temporary bytes while it is reversed, beyond the gradient of its input state."),
    ] = 0
    gradient_bytes: Annotated[
        SizeBytes | None,
        Field(description="Gradient of its output state; null means as large as the state, 0 none."),
    ] = None
    reversal: Annotated[
        ReversalRecord | None, Field(description="How it is undone; null when it cannot be.")
    ] = Field(default=None, exclude_if=lambda given: given is None)

    def stage(self) -> Stage:
        """The stage as the planner's core knows it."""
        return Stage(
            forward_cost=self.forward_cost,
            taped_forward_cost=self.taped_forward_cost,
            backward_cost=self.backward_cost,
            state_bytes=self.state_bytes,
            tape_bytes=self.tape_bytes,
            forward_workspace_bytes=self.forward_workspace_bytes,
            taped_forward_workspace_bytes=self.taped_forward_workspace_bytes,
            backward_workspace_bytes=self.backward_workspace_bytes,
            gradient_bytes=self.gradient_bytes,
            reversal=None if self.reversal is None else self.reversal.reversal(),
        )


@dataclass(config=CONFIG, frozen=True, slots=True, kw_only=True)
class StageRunRecord(StageRecord):
    """`count` consecutive equal stages."""

    count: Count = 1
    """How many."""


class ChainModel(Message):
    """Any chain-shaped computation, given by the costs and sizes of its stages in order."""

    kind: Literal["chain"]
    input_bytes: SizeBytes = 0
    """The state x_0, held from start to end."""
    static_bytes: SizeBytes = 0
    """What is live throughout besides states, tapes and gradients."""
    loss_gradient_bytes: SizeBytes = 0
    """The gradient of the last state that comes from outside; 0 when the loss is inside the last stage."""
    input_gradient_bytes: SizeBytes | None = None
    """The gradient of x_0; null means as large as x_0."""
    stages: list[StageRunRecord] = Field(min_length=1, max_length=1_000_000, fail_fast=True)

    def chain(self) -> Chain:
        """The chain as the planner's core knows it. Raises TooManyStages."""
        return Chain(
            merge_runs(self._runs()),
            input_bytes=self.input_bytes,
            static_bytes=self.static_bytes,
            loss_gradient_bytes=self.loss_gradient_bytes,
            input_gradient_bytes=self.input_gradient_bytes,
        )

    def _runs(self) -> Iterator[StageRun]:
        changes = 0
        previous: Stage | None = None
        for record in self.stages:
            stage = record.stage()
            changes += stage != previous
            if changes > MOST_RUNS:
                raise TooManyStages(entry_count=len(self.stages))
            yield StageRun(record.count, stage)
            previous = stage
