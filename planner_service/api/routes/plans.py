"""/v1/plans: make a plan, read it, stream its schedule."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from planner_service.api.answers.caching import IMMUTABLE, etag, not_modified
from planner_service.api.answers.known_bodies import PlanRoute, plan_response
from planner_service.api.openapi import QUESTION_PROBLEMS, known_before, problems
from planner_service.api.service import ServiceDependency, service_of
from planner_service.contract import PlanReply, PlanRequest
from planner_service.planning import Planner

router = APIRouter(tags=["plans"], route_class=PlanRoute)

LINES_PER_CHUNK = 500
"""Small enough that formatting a chunk does not hold up the event loop."""


class NdjsonResponse(StreamingResponse):
    """One JSON document a line, sent as it is made."""

    media_type = "application/x-ndjson"


@router.post(
    "/v1/plans",
    status_code=201,
    response_model=PlanReply,
    responses={
        **known_before(PlanReply, "The plan was made before"),
        **QUESTION_PROBLEMS,
    },
)
async def make_plan(plan_request: PlanRequest, request: Request, service: ServiceDependency) -> Response:
    """The plan for a model, a sequence and a budget: 201 when it is new, 200 when it was known."""
    question = await service.resolved(plan_request)
    plan = await service.plans.obtain(question, request)
    if question is plan_request:  # with a stored profile, the same body may mean something else tomorrow
        service.plans.bodies.remember(await request.body(), plan.plan_id)
    return plan_response(plan.plan_id, plan.reply, is_new=plan.is_new)


async def read_plan(request: Request) -> Response:
    """The plan of this id; it never changes."""
    plan_id = request.path_params["plan_id"]
    reply = await service_of(request).plans.read(plan_id)
    headers = {"etag": etag(plan_id), "cache-control": IMMUTABLE}
    if not_modified(request, plan_id):
        return Response(status_code=304, headers=headers)
    return Response(reply, headers=headers, media_type="application/json")


read_plan_route = Route("/v1/plans/{plan_id}", read_plan, methods=["GET"])


@router.get(
    "/v1/plans/{plan_id}/schedule",
    response_class=NdjsonResponse,
    responses=problems(404),
)
async def stream_schedule(plan_id: str, service: ServiceDependency) -> Response:
    """The plan's schedule, one action a line (NDJSON), expanded while it is sent."""
    reply = await service.plans.read(plan_id)
    headers = {"etag": etag(plan_id), "cache-control": IMMUTABLE}
    return NdjsonResponse(_schedule_lines(service.planner, reply), headers=headers)


def _schedule_lines(planner: Planner, reply: bytes) -> Iterator[bytes]:
    """The actions of a plan's reply as chunks of NDJSON, in constant memory; runs in a thread."""
    actions = planner.schedule(PlanReply.model_validate_json(reply))
    while chunk := [json.dumps(action) for action in islice(actions, LINES_PER_CHUNK)]:
        yield ("\n".join(chunk) + "\n").encode()
