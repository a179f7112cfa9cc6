"""What was measured, put into a question: the profile that it is then planned with is part of its name.

A resolved question carries the profile in full, as if whoever asked had sent it. Its id therefore changes
with the profile, and the plan of every earlier profile stays what it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from planner_service.calibration import computed_stage, estimated_profile, family_ratios, workload_of
from planner_service.contract import ProfileRecord, Question, RecurrentModel
from planner_service.memory import Profile, Workload, profile_from_record, profile_record
from planner_service.memory.profile import candidates_as_measured
from planner_service.planning.candidates import workload_of as workload_of_question

LEAST_COVERAGE_RATIO = 0.5
"""An estimate that holds for fewer than every other model is no plan: eleven models must have been probed."""

Asked = TypeVar("Asked", bound=Question)


def subject_of_question(question: Question) -> str | None:
    """A name of what the question is about, the same as of its profiles; None where there are none to name:
    a chain brings its own stages, and reversible cells have no ratios yet.
    """
    if not isinstance(question.model, RecurrentModel):
        return None
    return _subject(workload_of_question(question))


def subject_of_profile(record: ProfileRecord) -> str:
    """A name of what was probed."""
    return _subject(workload_of(as_profile(record)))


def as_profile(record: ProfileRecord) -> Profile:
    """The record as the memory model takes it."""
    return profile_from_record(record.model_dump())


def require_plannable(record: ProfileRecord) -> None:
    """Raises InvalidChain or ProfileMismatch for a profile that no plan could use, whoever asked for it."""
    profile = as_profile(record)
    workload = workload_of(profile)
    candidates_as_measured(workload, profile)
    for measured in profile.segments:
        computed_stage(workload, measured.segment_steps)


def _subject(workload: Workload) -> str:
    call = replace(workload, optimizer="sgd", reserved_bytes=0)  # neither is the call's own
    return hashlib.sha256(repr(call).encode()).hexdigest()[:32]


def with_profile(question: Asked, profile: Profile, *, name: str | None = None) -> Asked:
    """The question with that profile, no longer with a reference to one."""
    record = ProfileRecord.model_validate({**profile_record(profile), "device_name": name})
    return question.model_copy(update={"profile": record, "profile_id": None, "device_name": None})


def on_device_of(record: ProfileRecord, question: Asked) -> Asked:
    """The question on the kind of device that was probed, where it says none: its default is nobody's word,
    and formulas of the CPU would be too few bytes for a GPU that is named.
    """
    device = workload_of(as_profile(record)).device
    if "device" in question.model_fields_set or question.device == device:
        return question
    return question.model_copy(update={"device": device})


def without_references(question: Asked) -> Asked:
    """The question as the formulas answer it: nothing was measured that helps."""
    return question.model_copy(update={"profile_id": None, "device_name": None})


def estimated(question: Question, alike: Sequence[Profile]) -> Profile | None:
    """A profile of the question's model from those of models alike, where nothing surer is to be had.

    None where the formulas bound the model (they always do, the estimate only mostly), below
    LEAST_COVERAGE_RATIO, and for sparsified gradients, whose cells have no ratios yet.
    """
    workload = workload_of_question(question)
    is_sparse = question.training is not None and question.training.gradient_sparsity is not None
    if not alike or is_sparse or workload.model.implementation == "steps":
        return None
    sure = [row for row in family_ratios(alike) if row.coverage.ratio >= LEAST_COVERAGE_RATIO]
    return estimated_profile(workload, sure, like=alike[0])
