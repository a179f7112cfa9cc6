"""A question with its curve, and the answers about it as they travel."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from planner_service.contract import Memory, PlanReply, PlanRequest, Question
from planner_service.contract.identity import BudgetIds
from planner_service.contract.placement import (
    AcceptableDevice,
    KubernetesRecord,
    PlacementOffer,
    RayRecord,
    SchedulerWordsRecord,
    SlurmRecord,
)
from planner_service.placement import AcceptableType, Offer, SchedulerWords
from planner_service.planning.curve import JobCurve
from planner_service.planning.version import PLANNER_VERSION


@dataclass(frozen=True)
class KnownQuestion:
    """What is known of a question."""

    question: Question
    job_curve: JobCurve
    reserved_bytes: int = 0
    """What the process holds besides, such as the buckets of a data-parallel job."""
    _known_ids: dict[int, str] = field(default_factory=dict)

    @property
    def has_exact_gradient(self) -> bool:
        """Whether its plans have the gradient of full BPTT."""
        training = self.question.training
        return training is None or training.gradient_sparsity is None

    def plan_request(self, point: int) -> PlanRequest:
        """The request whose plan is that point of the curve."""
        asked = self.question
        budget_bytes = int(self.job_curve.curve.budget_bytes[point])
        return PlanRequest(
            model=asked.model,
            sequence=asked.sequence,
            training=asked.training,
            device=asked.device,
            profile=asked.profile,
            memory=Memory(device_budget_bytes=budget_bytes, reserved_bytes=self.reserved_bytes),
        )

    @cached_property
    def _ids(self) -> BudgetIds:
        leanest = self.plan_request(0)
        return BudgetIds(leanest, leanest.memory.device_budget_bytes, PLANNER_VERSION)

    def plan_id(self, point: int) -> str:
        """The id of that plan, without planning."""
        known = self._known_ids.get(point)
        if known is None:
            known = self._known_ids[point] = self._ids.of(int(self.job_curve.curve.budget_bytes[point]))
        return known


def offer_record(known: KnownQuestion, offer: Offer, plan: PlanReply | None) -> PlacementOffer:
    """One hole's answer; the numbers are those of `plan` where it was made for this very offer."""
    hole = offer.hole
    ratio = 1.0
    if plan is not None and offer.makespan:
        ratio = plan.cost.makespan / offer.makespan
    return PlacementOffer(
        hole=hole.name,
        node=hole.node,
        fits=offer.fits,
        reason=offer.reason,
        missing_bytes=offer.missing_bytes,
        plan_id=known.plan_id(offer.point) if offer.fits else None,
        budget_bytes=offer.budget_bytes,
        request_bytes=offer.request_bytes,
        limit_bytes=offer.limit_bytes,
        context_bytes=hole.context_bytes,
        reserve_bytes=hole.reserve_bytes,
        available_bytes=offer.available_bytes,
        slowdown_ratio=_scaled(offer.slowdown_ratio, ratio),
        seconds=_scaled(offer.seconds, ratio),
        cost=_scaled(offer.cost, ratio),
        planned=offer.fits and (plan is not None or known.job_curve.curve.exactness == "planned"),
    )


def _scaled(value: float | None, ratio: float) -> float | None:
    return None if value is None else value * ratio


def acceptable_record(known: KnownQuestion, kind: AcceptableType) -> AcceptableDevice:
    """One type of device."""
    return AcceptableDevice(
        device=kind.smallest.device,
        mig_slice=kind.smallest.mig_slice,
        fraction=kind.smallest.fraction,
        total_bytes=kind.smallest.memory_total_bytes,
        device_count=kind.device_count,
        plan_id=known.plan_id(kind.point),
        budget_bytes=kind.budget_bytes,
        request_bytes=kind.request_bytes,
        limit_bytes=kind.limit_bytes,
        slowdown_ratio=kind.slowdown_ratio,
    )


def words_record(known: KnownQuestion, words: SchedulerWords) -> SchedulerWordsRecord:
    """The words for all schedulers."""
    wanted = words.wanted
    return SchedulerWordsRecord(
        plan_id=known.plan_id(wanted.tightest.point),
        budget_bytes=wanted.tightest.budget_bytes,
        request_bytes=wanted.request_bytes,
        limit_bytes=wanted.limit_bytes,
        slurm=SlurmRecord.model_validate(words.slurm, from_attributes=True),
        kubernetes=KubernetesRecord.model_validate(words.kubernetes, from_attributes=True),
        ray=RayRecord.model_validate(words.ray, from_attributes=True),
    )
