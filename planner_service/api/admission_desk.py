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
from planner_service.contract import PlacementRequest, PlanReply
from planner_service.contract.admission import AdmissionResponse, AdmissionReview, AdmissionReviewReply
from planner_service.contract.placement import HoleRecord, JobPlacement, PlacementJob
from planner_service.kubernetes.admission import Asked, Found, asked_of, filled, refused, unchanged
from planner_service.kubernetes.objects import PodResources, product_affinity
from planner_service.placement.holes import DEFAULT_CONTEXT_BYTES, DEFAULT_DRIVER_RESERVE_RATIO
from planner_service.placement.kubernetes import GPU
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
        uid, job = review.request.uid, review.request.object
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
        except (PlanningError, ValidationError, SQLAlchemyError, ValueError) as error:
            reason = str(error).replace("\n", "; ")[:300]
            return unchanged(uid, f"tightfit: the Job is admitted as it is: {reason}")
        return filled(uid, job, found)

    def _find(self, asked: Asked, cancellation: Cancellation) -> Found:
        if asked.plan_id is not None:
            return self._of_plan(asked.plan_id, asked.claim_template)
        return self._of_request(asked.request or "", asked.claim_template, cancellation)

    def _of_plan(self, plan_id: str, claim_template: str | None) -> Found:
        """By the budget of a stored plan: products whose every device holds it."""
        reply = self._plans.reply(plan_id)
        if reply is None:
            raise ValueError(f"no plan has the id {plan_id!r}")
        budget_bytes = PlanReply.model_validate_json(reply).memory.budget_bytes
        request_bytes = budget_bytes + DEFAULT_CONTEXT_BYTES
        return Found(
            plan_id=plan_id,
            budget_bytes=budget_bytes,
            request_bytes=request_bytes,
            limit_bytes=round(request_bytes / (1 - DEFAULT_DRIVER_RESERVE_RATIO)) + 1,
            resources=_claimed(claim_template) or self._devices_for(budget_bytes),
        )

    def _devices_for(self, budget_bytes: int) -> PodResources:
        if not self._holes:
            return PodResources(limits={GPU: "1"})
        products: dict[str, int] = {}
        for record in self._holes:
            hole = hole_of(record)
            if hole.device_kind == "cuda" and hole.mig_slice is None and hole.fraction is None:
                product = hole.names.kubernetes or hole.device
                products[product] = min(hole.empty_bytes, products.get(product, hole.empty_bytes))
        holding = [product for product, least_bytes in products.items() if least_bytes >= budget_bytes]
        if not holding:
            missing_bytes = budget_bytes - max(products.values(), default=0)
            raise NothingHoldsIt(f"no GPU of this cluster holds the plan: {missing_bytes} bytes are missing")
        return PodResources(
            limits={GPU: "1"}, node_affinity=product_affinity([name for name in holding if name])
        )

    def _of_request(self, text: str, claim_template: str | None, cancellation: Cancellation) -> Found:
        """By placing the request on the cluster's holes."""
        if not self._holes:
            raise ValueError("the service knows no holes of this cluster: set TIGHTFIT_HOLES_FILE")
        job = PlacementJob.model_validate(json.loads(text))
        request = PlacementRequest(jobs=[job], holes=self._holes, most_offers=1, planned_offers=0)
        (placed,) = self._planner.place(request, cancellation).jobs
        return _found(placed, claim_template)

    def close(self) -> None:
        """Wait for nobody."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _found(placed: JobPlacement, claim_template: str | None) -> Found:
    words = placed.words
    if words is None:
        missing_bytes = placed.offers[0].missing_bytes
        least_bytes = placed.minimum_budget_bytes
        raise NothingHoldsIt(
            f"no device of this cluster holds the job: its leanest plan needs {least_bytes} bytes and the "
            f"largest hole lacks {missing_bytes}"
        )
    first = words.kubernetes.alternatives[0]
    return Found(
        plan_id=words.plan_id,
        budget_bytes=words.budget_bytes,
        request_bytes=words.request_bytes,
        limit_bytes=words.limit_bytes,
        resources=_claimed(claim_template)
        or PodResources(limits=first.limits, node_affinity=first.node_affinity),
    )


def _claimed(claim_template: str | None) -> PodResources | None:
    return None if claim_template is None else PodResources(claim_template=claim_template)
