"""Profiles by id, and questions that name one, or a device, with the profile that is meant."""

from __future__ import annotations

from typing import TypeVar

from planner_service.api.errors import UnknownProfile
from planner_service.calibration import Margin, PeakResidual, margins_of, stage_errors, with_margins
from planner_service.contract import ProfileRecord, Question
from planner_service.contract.stored_profiles import (
    MarginRecord,
    ProfilePage,
    ProfileSummary,
    StageErrorRecord,
    StoredProfile,
)
from planner_service.memory import Profile
from planner_service.planning.calibrated import (
    as_profile,
    estimated,
    on_device_of,
    require_plannable,
    subject_of_profile,
    subject_of_question,
    with_profile,
    without_references,
)
from planner_service.planning.candidates import ProfileNotKept, workload_of
from planner_service.store import Family, KeptProfile, ProfileStore

Asked = TypeVar("Asked", bound=Question)


class ProfileLibrary:
    """Everything the service has measured. The methods block: call them off the event loop."""

    def __init__(self, store: ProfileStore) -> None:
        self._store = store

    def add(self, record: ProfileRecord) -> tuple[StoredProfile, bool]:
        """Keep what a probe measured; sending it again changes nothing.

        Raises InvalidChain or ProfileMismatch for what no plan could use: kept, it would be the device's
        latest and spoil its plans.
        """
        require_plannable(record)
        kept, is_new = self._store.add(record, subject=subject_of_profile(record))
        return self._shown(kept), is_new

    def get(self, profile_id: str) -> StoredProfile:
        """The profile, with what its runs and its likes have taught. Raises UnknownProfile."""
        kept = self._store.get(profile_id)
        if kept is None:
            raise UnknownProfile(profile_id)
        return self._shown(kept)

    def forget(self, profile_id: str) -> None:
        """Plan with it no longer, nor estimate its likes. Raises UnknownProfile."""
        if not self._store.forget(profile_id):
            raise UnknownProfile(profile_id)

    def page(
        self, *, limit: int, before: int | None, device_name: str | None, cell: str | None
    ) -> ProfilePage:
        """Some profiles, the latest first."""
        found, cursor = self._store.page(limit=limit, before=before, device_name=device_name, cell=cell)
        return ProfilePage(profiles=[_summary(kept) for kept in found], next_cursor=cursor)

    def resolved(self, question: Asked) -> Asked:
        """The question with the profile that it names or that its device has. Raises ProfileNotKept."""
        if question.profile_id is not None:
            kept = self._store.get(question.profile_id)
            if kept is None or not kept.is_readable:
                raise ProfileNotKept(question.profile_id)
            return self._with(on_device_of(kept.record, question), kept)
        if question.device_name is None or question.profile is not None:
            return without_references(question)
        known = self._store.latest_on(question.device_name)
        if known is None:
            return without_references(question)
        return self._of_device(on_device_of(known.record, question), question.device_name)

    def _of_device(self, question: Asked, device_name: str) -> Asked:
        """The model's own profile there; else one of its likes', for kernels without formulas; else none."""
        subject = subject_of_question(question)
        if subject is None:
            return without_references(question)
        kept = self._store.latest_of(subject, device_name=device_name)
        if kept is not None:
            return self._with(question, kept)
        model = workload_of(question).model
        family = Family(device_name, model.cell_kind, model.implementation, model.dtype)
        profile = estimated(question, self._alike(family))
        if profile is None:
            return without_references(question)
        return with_profile(question, with_margins(profile, self._margins(family)), name=device_name)

    def _with(self, question: Asked, kept: KeptProfile) -> Asked:
        profile = with_margins(as_profile(kept.record), self._margins(kept.family))
        return with_profile(question, profile, name=kept.device_name)

    def _alike(self, family: Family) -> list[Profile]:
        return [as_profile(kept.record) for kept in self._store.of_family(family)]

    def _margins(self, family: Family) -> dict[int, Margin]:
        return margins_of(PeakResidual(*residual) for residual in self._store.residuals(family))

    def _shown(self, kept: KeptProfile) -> StoredProfile:
        make = StoredProfile if kept.is_readable else StoredProfile.model_construct
        return make(
            **dict(_summary(kept)),
            profile=kept.record,
            models=len({subject_of_profile(other.record) for other in self._store.of_family(kept.family)}),
            margins=[_margin(margin) for margin in self._margins(kept.family).values()],
            errors=self._errors(kept) if kept.is_readable else [],
        )

    def _errors(self, kept: KeptProfile) -> list[StageErrorRecord]:
        errors = stage_errors(as_profile(kept.record), self._alike(kept.family))
        return [StageErrorRecord(**error._asdict()) for error in errors]


def _summary(kept: KeptProfile) -> ProfileSummary:
    names = ProfileSummary.model_fields.keys() - {"id", "received_at", "device_name"}
    told = {name: getattr(kept.record, name) for name in names}
    make = ProfileSummary if kept.is_readable else ProfileSummary.model_construct
    return make(id=kept.id, received_at=kept.received_at, device_name=kept.device_name, **told)


def _margin(margin: Margin) -> MarginRecord:
    return MarginRecord(
        segment_steps=margin.segment_steps,
        runs=margin.coverage.measurements,
        set_aside_runs=margin.set_aside,
        largest_ratio=float(margin.largest_ratio),
        factor=float(margin.factor),
        coverage_ratio=margin.coverage.ratio,
    )
