"""The use case of the admission webhook: within a second and a half, whatever the planner does."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from planner_service.chain import PlanningError
from planner_service.contract import PlacementRequest, PlanReply, PlanRequest, problem_from_validation
from planner_service.contract.admission import AdmissionResponse, AdmissionReview, AdmissionReviewReply
from planner_service.contract.holes import HoleRecord
from planner_service.contract.placement import JobPlacement, PlacementJob, PodNeedsRecord
from planner_service.kubernetes.admission import (
    REQUEST_ANNOTATION,
    Asked,
    Found,
    asked_of,
    filled,
    refused,
    unchanged,
)
from planner_service.kubernetes.objects import MEMORY, PodResources
from planner_service.placement.holding import is_whole, types_that_hold
from planner_service.placement.holes import DEFAULT_CONTEXT_BYTES, nominal_bytes
from planner_service.placement.kubernetes import GPU, PodNeeds, pod_alternatives, product_of
from planner_service.placement.wanted import mebibytes
from planner_service.planning import Planner
from planner_service.planning.placement import hole_of
from planner_service.solvers import Cancellation
from planner_service.store import PlanStore

log = logging.getLogger(__name__)

LIMIT_SECONDS = 1.5
"""The API server waits for 2 seconds; an answer after that is none."""
THREADS = 2


class NothingHoldsIt(PlanningError):
    """No type of device in the cluster holds the job; its message is for whoever applied it."""


class AdmissionDesk:
    """Answers AdmissionReviews from stored plans, or by placing a request on the cluster's holes."""

    def __init__(self, planner: Planner, plans: PlanStore, holes: Sequence[HoleRecord]) -> None:
        self._planner = planner
        self._plans = plans
        self._holes = list(holes)
        # Threads of its own: those that plan may all be busy for a minute.
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="admission")

    async def review(self, review: AdmissionReview) -> AdmissionReviewReply:
        """The answer. Refuses only what no device will ever hold; otherwise the Job is admitted, if need be
        as it is, with a warning that says why.
        """
        uid, job = review.request.uid, review.request.job
        asked = asked_of(job)
        if job is None or asked.nothing:
            return AdmissionReviewReply(response=unchanged(uid))
        return AdmissionReviewReply(response=await self._answer(uid, job, asked))

    async def _answer(self, uid: str, job: Mapping[str, Any], asked: Asked) -> AdmissionResponse:
        cancellation = Cancellation()
        finding = asyncio.get_running_loop().run_in_executor(self._threads, self._find, asked, cancellation)
        try:
            found = await asyncio.wait_for(finding, LIMIT_SECONDS)
        except NothingHoldsIt as refusal:
            return refused(uid, f"tightfit: {refusal}")
        except TimeoutError:
            cancellation.cancel()
            log.warning("admission took too long", extra={"action": "admission_timeout"})
            return unchanged(uid, "tightfit: no answer in time; the Job is admitted as it is")
        except (PlanningError, SQLAlchemyError, ValueError) as error:
            reason = str(error).replace("\n", "; ")[:300]
            return unchanged(uid, f"tightfit: the Job is admitted as it is: {reason}")
        return filled(uid, job, found)

    def _find(self, asked: Asked, cancellation: Cancellation) -> Found:
        if asked.plan_id is not None:
            return self._of_plan(asked.plan_id, asked.claim_template)
        return self._of_request(asked.request or "", asked.claim_template, cancellation)

    def _of_plan(self, plan_id: str, claim_template: str | None) -> Found:
        """By the budget of a stored plan: products whose every device holds it, or main memory."""
        plan = self._plans.get(plan_id)
        if plan is None:
            raise ValueError(f"no plan has the id {plan_id!r}")
        on_cpu = PlanRequest.model_validate_json(plan.request).device == "cpu"
        budget_bytes = PlanReply.model_validate_json(plan.reply).memory.budget_bytes
        request_bytes = budget_bytes + DEFAULT_CONTEXT_BYTES
        limit_bytes = request_bytes if on_cpu else nominal_bytes(request_bytes)
        if on_cpu:
            resources = PodResources(limits={MEMORY: f"{mebibytes(limit_bytes)}Mi"})
        else:
            resources = _claimed(claim_template) or self._devices_for(budget_bytes)
        return Found(
            plan_id=plan_id,
            budget_bytes=budget_bytes,
            request_bytes=request_bytes,
            limit_bytes=limit_bytes,
            resources=resources,
        )

    def _devices_for(self, budget_bytes: int) -> PodResources:
        """One device of a type whose every device holds so much, the quickest first."""
        if not self._holes:
            return PodResources(limits={GPU: "1"})
        holes = [hole for hole in map(hole_of, self._holes) if is_whole(hole, "cuda")]
        types = types_that_hold(budget_bytes, "cuda", holes)
        if not types:
            missing_bytes = budget_bytes - max((hole.empty_bytes for hole in holes), default=0)
            raise NothingHoldsIt(f"no GPU of this cluster holds the plan: {missing_bytes} bytes are missing")
        named = [hole for hole in types if hole.mig_slice or product_of(hole)]
        if not named and any(hole.empty_bytes < budget_bytes for hole in holes):
            raise ValueError("the types of GPUs that hold the plan have no product name in the holes")
        return _counted(pod_alternatives(named or types, 1)[0])

    def _of_request(self, text: str, claim_template: str | None, cancellation: Cancellation) -> Found:
        """By placing the request on the cluster's holes."""
        if not self._holes:
            raise ValueError("the service knows no holes of this cluster: set TIGHTFIT_HOLES_FILE")
        job = _asked_to_place(text)
        request = PlacementRequest(jobs=[job], holes=self._holes, most_offers=1, planned_offers=0)
        (placed,) = self._planner.place(request, cancellation).jobs
        return _found(placed, claim_template)

    def close(self) -> None:
        """Wait for nobody."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _asked_to_place(text: str) -> PlacementJob:
    """What the annotation asks to be placed. Raises ValueError, in words for whoever wrote it."""
    try:
        return PlacementJob.model_validate(json.loads(text))
    except ValidationError as error:
        raise ValueError(f"{REQUEST_ANNOTATION}: {problem_from_validation(error).detail}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{REQUEST_ANNOTATION} is no JSON: {error}") from error


def _found(placed: JobPlacement, claim_template: str | None) -> Found:
    words = placed.words
    if words is None:
        raise NothingHoldsIt(f"no device of this cluster holds the job: {placed.shortage}")
    claimed = _claimed(claim_template)
    if claimed is None and not words.kubernetes.alternatives:
        raise ValueError("only fractions of devices hold the job, which Kubernetes does not give out")
    return Found(
        plan_id=words.plan_id,
        budget_bytes=words.budget_bytes,
        request_bytes=words.request_bytes,
        limit_bytes=words.limit_bytes,
        resources=claimed or _counted(words.kubernetes.alternatives[0]),
    )


def _counted(needs: PodNeedsRecord | PodNeeds) -> PodResources:
    return PodResources(limits=needs.limits, node_affinity=needs.node_affinity)


def _claimed(claim_template: str | None) -> PodResources | None:
    return None if claim_template is None else PodResources(claim_template=claim_template)
