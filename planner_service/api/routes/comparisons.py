"""/v1/comparisons: every strategy side by side."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from planner_service.api.answers.large_bodies import LargeBodyRoute
from planner_service.api.openapi import QUESTION_PROBLEMS
from planner_service.api.service import ServiceDependency
from planner_service.contract import ComparisonReply, ComparisonRequest

router = APIRouter(tags=["comparisons"], route_class=LargeBodyRoute)


@router.post("/v1/comparisons", response_model=ComparisonReply, responses=QUESTION_PROBLEMS)
async def compare_strategies(
    question: ComparisonRequest, request: Request, service: ServiceDependency
) -> Response:
    """Every strategy at equal bytes and at equal time, each flagged exact or not."""
    return await service.answer(service.planner.compare, question, request)
