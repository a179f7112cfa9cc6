"""/v1/kubernetes/admission: the mutating webhook of annotated Jobs."""

from __future__ import annotations

from fastapi import APIRouter

from planner_service.api.answers.large_bodies import LargeBodyRoute
from planner_service.api.openapi import MESSAGE_PROBLEMS
from planner_service.api.service import ServiceDependency
from planner_service.contract.admission import AdmissionReview, AdmissionReviewReply

router = APIRouter(tags=["kubernetes"], route_class=LargeBodyRoute)


@router.post("/v1/kubernetes/admission", response_model_exclude_none=True, responses=MESSAGE_PROBLEMS)
async def review_admission(review: AdmissionReview, service: ServiceDependency) -> AdmissionReviewReply:
    """Fill a Job's resources from the plan or the request in its annotations; admit every other as it is."""
    return await service.admission.review(review)
