"""The use case `place`: jobs against the holes of a cluster, each job by one curve."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from planner_service.contract import ChainModel, PlanReply, PlanRequest, Question, content_id
from planner_service.contract.holes import HoleRecord
from planner_service.contract.placement import (
    JobPlacement,
    PlacementJob,
    PlacementReply,
    PlacementRequest,
)
from planner_service.memory import Profile, is_counted
from planner_service.placement import (
    DEFAULT_CONTEXT_BYTES,
    DEFAULT_DRIVER_RESERVE_RATIO,
    Demand,
    Hole,
    Offer,
    Site,
    TypeNames,
    acceptable_types,
    offers_of,
    words_of,
)
from planner_service.planning.candidates import candidates_of, workload_of
from planner_service.planning.curve import JobCurve, curve_of_candidates
from planner_service.planning.data_parallel import bucket_bytes, share_of_rank
from planner_service.planning.job_needs import question_of_job
from planner_service.planning.placement_records import (
    KnownQuestion,
    acceptable_record,
    offer_record,
    words_record,
)
from planner_service.planning.step_curve import curve_of_steps
from planner_service.planning.version import PLANNER_VERSION
from planner_service.solvers import Cancellation

MakePlan = Callable[[PlanRequest], PlanReply]


def placement(
    request: PlacementRequest,
    known_profiles: Sequence[Profile],
    make_plan: MakePlan,
    cancellation: Cancellation | None = None,
) -> PlacementReply:
    """Where each job fits. Raises PlanningError for a model that cannot be planned at all.

    Jobs that ask the same question share a curve. `make_plan` makes the plans of the best offers.
    """
    site = Site.of(
        [
            hole_of(
                record,
                context_bytes=request.context_bytes,
                driver_reserve_ratio=request.driver_reserve_ratio,
            )
            for record in request.holes
        ]
    )
    curves = _Curves(known_profiles, cancellation)
    jobs = []
    for number, job in enumerate(request.jobs, start=1):
        if cancellation is not None:
            cancellation.check()
        jobs.append(_placed(_Asked(job, number, curves), site, request, make_plan))
    return PlacementReply(planner_version=PLANNER_VERSION, hole_count=len(site.holes), jobs=jobs)


class _Curves:
    """The curves of one request, one per question."""

    def __init__(self, known_profiles: Sequence[Profile], cancellation: Cancellation | None) -> None:
        self._known_profiles = known_profiles
        self._cancellation = cancellation
        self._known: dict[str, KnownQuestion] = {}

    def of(self, question: Question, devices: int) -> KnownQuestion:
        """The curve of one of so many ranks of the question, made once."""
        share = share_of_rank(question, devices)
        key = content_id(share, f"{PLANNER_VERSION} {devices > 1}")
        if key not in self._known:
            reserved_bytes = bucket_bytes(share) if devices > 1 else 0
            self._known[key] = KnownQuestion(share, self._curve(share, reserved_bytes), reserved_bytes)
        return self._known[key]

    def _curve(self, question: Question, reserved_bytes: int) -> JobCurve:
        if question.profile is None and not isinstance(question.model, ChainModel):
            workload = workload_of(question, reserved_bytes=reserved_bytes)
            counted = is_counted(workload, self._known_profiles)
            if counted and (curve := curve_of_steps(workload)) is not None:
                return curve
        candidates = candidates_of(question, self._known_profiles, reserved_bytes=reserved_bytes)
        return curve_of_candidates(candidates, self._cancellation)


class _Asked:
    """One job of the request."""

    def __init__(self, job: PlacementJob, number: int, curves: _Curves) -> None:
        self.name = job.name or f"job-{number}"
        self.maximum_slowdown_ratio = job.maximum_slowdown_ratio
        self.iterations = job.iterations or 1
        if job.job is None:
            question = job.question()
        else:
            question = question_of_job(job.job, job.device)
            self.name = job.name or job.job.name or self.name
            self.iterations = job.iterations or job.job.training.iterations
            self.maximum_slowdown_ratio = job.maximum_slowdown_ratio or job.job.maximum_slowdown_ratio
        self.known = curves.of(question, job.devices)
        self.unit = self.known.job_curve.unit
        self.demand = Demand(
            device_kind=job.device,
            devices=job.devices,
            maximum_slowdown_ratio=self.maximum_slowdown_ratio,
            seconds_per_unit=self._seconds_per_unit(job.forward_seconds),
        )

    def _seconds_per_unit(self, forward_seconds: float | None) -> float | None:
        if forward_seconds is not None:
            return forward_seconds * self.iterations
        return float(self.iterations) if self.unit == "seconds" else None


def _placed(asked: _Asked, site: Site, request: PlacementRequest, make_plan: MakePlan) -> JobPlacement:
    known, demand = asked.known, asked.demand
    curve = known.job_curve.curve
    offers = offers_of(site, demand, curve, rank_by=request.rank_by, most_offers=request.offers_per_job)
    plans = _plans(known, offers.ranked[: request.plans_per_job], make_plan)
    types = acceptable_types(site, demand, curve)
    words = words_of(types, demand.devices)
    return JobPlacement(
        name=asked.name,
        unit=asked.unit,
        exact_gradient=known.has_exact_gradient,
        minimum_budget_bytes=curve.minimum_budget_bytes,
        held_bytes=known.job_curve.held_bytes,
        store_all_peak_bytes=known.job_curve.full.peak_bytes,
        store_all_makespan=known.job_curve.full.makespan,
        fitting_count=offers.fitting_count,
        offers=[offer_record(known, offer, plans.get(offer.point)) for offer in offers.ranked],
        acceptable=[acceptable_record(known, each) for each in types],
        words=None if words is None else words_record(known, words),
    )


def _plans(known: KnownQuestion, offers: Sequence[Offer], make_plan: MakePlan) -> dict[int, PlanReply]:
    """The plans of these offers by their point."""
    points = {offer.point for offer in offers if offer.fits}
    return {point: make_plan(known.plan_request(point)) for point in sorted(points)}


def hole_of(
    record: HoleRecord,
    *,
    context_bytes: int = DEFAULT_CONTEXT_BYTES,
    driver_reserve_ratio: float = DEFAULT_DRIVER_RESERVE_RATIO,
) -> Hole:
    """A hole as it travelled, in the planner's own words."""
    names = record.names
    return Hole(
        name=record.name,
        node=record.node or record.name,
        device_kind=record.device_kind,
        device=record.device,
        names=TypeNames(slurm=names.slurm, kubernetes=names.kubernetes, ray=names.ray),
        memory_total_bytes=record.memory_total_bytes,
        memory_free_bytes=record.memory_free_bytes,
        mig_slice=record.mig_slice,
        fraction=record.fraction,
        given_speed=record.relative_speed,
        hourly_cost=record.hourly_cost,
        count=record.count,
        context_bytes=context_bytes if record.context_bytes is None else record.context_bytes,
        driver_reserve_ratio=driver_reserve_ratio,
    )
