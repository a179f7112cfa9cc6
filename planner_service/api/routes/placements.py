"""/v1/placements: where jobs fit."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from planner_service.api.answers.large_bodies import LargeBodyRoute
from planner_service.api.openapi import QUESTION_PROBLEMS
from planner_service.api.service import ServiceDependency
from planner_service.contract import PlacementReply, PlacementRequest

router = APIRouter(tags=["placements"], route_class=LargeBodyRoute)


@router.post("/v1/placements", response_model=PlacementReply, responses=QUESTION_PROBLEMS)
async def place_jobs(question: PlacementRequest, request: Request, service: ServiceDependency) -> Response:
    """Jobs against the holes of a cluster: what fits where, how slow, at which cost, ranked."""
    return await service.answer(service.place, question, request)
