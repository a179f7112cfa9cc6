"""/v1/simulations: any schedule or policy, judged action by action."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from planner_service.api.answers.large_bodies import LargeBodyRoute
from planner_service.api.openapi import QUESTION_PROBLEMS
from planner_service.api.service import ServiceDependency
from planner_service.contract import SimulationReply, SimulationRequest

router = APIRouter(tags=["simulations"], route_class=LargeBodyRoute)


@router.post("/v1/simulations", response_model=SimulationReply, responses=QUESTION_PROBLEMS)
async def simulate(question: SimulationRequest, request: Request, service: ServiceDependency) -> Response:
    """The simulator's judgement: legal, or the first illegal action and why; peak and makespan."""
    return await service.answer(service.planner.simulate, question, request)
