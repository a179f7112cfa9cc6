"""/v1/frontiers: what each budget buys."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from planner_service.api.answers.large_bodies import LargeBodyRoute
from planner_service.api.openapi import QUESTION_PROBLEMS
from planner_service.api.service import ServiceDependency
from planner_service.contract import FrontierReply, FrontierRequest

router = APIRouter(tags=["frontiers"], route_class=LargeBodyRoute)


@router.post("/v1/frontiers", response_model=FrontierReply, responses=QUESTION_PROBLEMS)
async def make_frontier(question: FrontierRequest, request: Request, service: ServiceDependency) -> Response:
    """The non-dominated (bytes, makespan) pairs, from the least budget to that of full BPTT."""
    return await service.answer(service.planner.frontier, question, request)
