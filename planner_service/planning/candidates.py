"""From a question to the chains that could be planned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from planner_service.chain import InvalidChain, PlanningError
from planner_service.contract import ChainModel, Question, RecurrentModel, ReversibleModel, Training
from planner_service.memory import (
    Candidate,
    LedgerLine,
    Profile,
    Source,
    StageSources,
    Workload,
    candidates_for,
    profile_from_record,
    total_bytes,
)
from planner_service.memory import RecurrentModel as CountedModel
from planner_service.memory.reversible_cells import ReversibleModel as CountedReversibleModel
from planner_service.memory.sparsity import GradientSparsity

MOST_STAGES = 10_000_000
"""A chain of more takes hours to plan, and gigabytes for tables of its stages."""


class ProfileNotKept(PlanningError):
    """A request names a profile that nobody keeps here."""

    field = "profile_id"

    def __init__(self, profile_id: str) -> None:
        self.profile_id = profile_id
        super().__init__(
            f"profile_id={profile_id!r} is not kept here: POST the profile to /v1/profiles, or send it along"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (ProfileNotKept, (self.profile_id,))


class UnknownSegmentLength(PlanningError, ValueError):
    """The model is not planned in segments of that length; `known` says in which it is."""

    field = "segment_steps"

    def __init__(self, segment_steps: int, known: tuple[int, ...]) -> None:
        self.segment_steps = segment_steps
        self.known = known
        lengths = ", ".join(map(str, known))
        super().__init__(f"segment_steps={segment_steps} is not planned: choose one of {lengths}")

    def __reduce__(self) -> tuple[object, ...]:
        return (UnknownSegmentLength, (self.segment_steps, self.known))


def candidates_of(
    question: Question, known_profiles: Sequence[Profile], *, reserved_bytes: int = 0
) -> list[Candidate]:
    """What may be planned: one candidate per segment length; a single one for a chain of given stages.

    Raises ProfileMismatch, ProfileNeeded, and InvalidChain when sizes leave the planner's range, or there are
    more stages than MOST_STAGES however the steps are cut.
    """
    candidates = all_candidates_of(question, known_profiles, reserved_bytes=reserved_bytes)
    within_reach = [candidate for candidate in candidates if candidate.chain.length <= MOST_STAGES]
    if not within_reach:
        fewest = min(candidate.chain.length for candidate in candidates)
        raise InvalidChain(
            f"{fewest} stages: up to {MOST_STAGES} are planned; run several steps as one segment",
            field="model.stages" if isinstance(question.model, ChainModel) else "sequence.length",
        )
    return within_reach


def all_candidates_of(
    question: Question, known_profiles: Sequence[Profile], *, reserved_bytes: int = 0
) -> list[Candidate]:
    """The same, of any length: for whoever plans nothing."""
    if isinstance(question.model, ChainModel):
        return [_given_chain(question.model, reserved_bytes)]
    if question.profile_id is not None:
        raise ProfileNotKept(question.profile_id)
    record = question.profile
    profile = None if record is None else profile_from_record(record.model_dump())
    workload = workload_of(question, reserved_bytes=reserved_bytes)
    candidates = candidates_for(workload, profile=profile, known_profiles=known_profiles)
    wanted = question.model.segment_steps if isinstance(question.model, ReversibleModel) else None
    return candidates if wanted is None else [_of_length(candidates, wanted)]


def segmented_as(
    question: Question, known_profiles: Sequence[Profile], segment_steps: int, *, reserved_bytes: int
) -> Candidate:
    """The candidate with that segment length. Raises UnknownSegmentLength with those there are."""
    candidates = all_candidates_of(question, known_profiles, reserved_bytes=reserved_bytes)
    return _of_length(candidates, segment_steps)


def _of_length(candidates: Sequence[Candidate], segment_steps: int) -> Candidate:
    for candidate in candidates:
        if candidate.segment_steps == segment_steps:
            return candidate
    raise UnknownSegmentLength(segment_steps, tuple(c.segment_steps or 0 for c in candidates))


def workload_of(question: Question, *, reserved_bytes: int = 0) -> Workload:
    """What a recurrent model is trained on, with the defaults that depend on other fields."""
    model, sequence, training = question.model, question.sequence, question.training or Training()
    if isinstance(model, ChainModel) or sequence is None:
        raise TypeError("only a recurrent model with a sequence is a workload")
    return Workload(
        model=_counted(model, "steps" if question.profile is None else question.profile.implementation),
        sequence_length=sequence.length,
        batch_size=sequence.batch_size,
        optimizer=training.optimizer,
        loss=training.loss or ("outside" if model.head is None else "inside"),
        device=question.device,
        reserved_bytes=reserved_bytes,
        gradient_sparsity=sparsity_of(training),
    )


def sparsity_of(training: Training | None) -> GradientSparsity | None:
    """What is dropped of the gradient; None when it is exact."""
    if training is None or training.gradient_sparsity is None:
        return None
    return GradientSparsity(**training.gradient_sparsity.model_dump())


def _counted(
    model: RecurrentModel | ReversibleModel, default_implementation: Literal["steps", "fused"]
) -> CountedModel:
    if isinstance(model, ReversibleModel):
        return _counted_reversible(model, default_implementation)
    return CountedModel(
        cell_kind=model.kind,
        input_size=model.input_size,
        hidden_size=model.hidden_size,
        num_layers=model.num_layers,
        dtype=model.dtype,
        implementation=model.implementation or default_implementation,
        embedding_size=None if model.embedding is None else model.embedding.vocabulary_size,
        head_output_size=None if model.head is None else model.head.output_size,
    )


def _counted_reversible(
    model: ReversibleModel, implementation: Literal["steps", "fused"]
) -> CountedReversibleModel:
    return CountedReversibleModel(
        cell_kind=model.kind,
        forget_bits=model.forget_bits,
        coding=model.coding,
        input_size=model.input_size,
        hidden_size=model.hidden_size,
        num_layers=model.num_layers,
        dtype=model.dtype,
        implementation=implementation,
        embedding_size=None if model.embedding is None else model.embedding.vocabulary_size,
        head_output_size=None if model.head is None else model.head.output_size,
    )


def _given_chain(model: ChainModel, reserved_bytes: int) -> Candidate:
    given = model.chain()
    ledger = [LedgerLine("static", given.static_bytes, "model.static_bytes", "exact")]
    if reserved_bytes:
        ledger.append(LedgerLine("reserved", reserved_bytes, "memory.reserved_bytes", "exact"))
    return Candidate(
        segment_steps=None,
        last_steps=None,
        chain=replace(given, static_bytes=total_bytes(ledger)),
        ledger=tuple(ledger),
        cost_unit="forward",
        sources=StageSources.all_from(Source("as given", "exact")),
    )
