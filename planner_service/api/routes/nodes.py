"""/v1/nodes and /v1/claims: who offers memory, and who takes which job."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from planner_service.api.answers.caching import answer_if_changed
from planner_service.api.answers.large_bodies import LargeBodyRoute
from planner_service.api.openapi import CONDITIONAL, MESSAGE_PROBLEMS, problems
from planner_service.api.service import ServiceDependency
from planner_service.api.storage import stored
from planner_service.contract.nodes import Assignment, ClaimRequest, Node, NodePage, NodeRegistration
from planner_service.contract.texts import LineText, StorableText

router = APIRouter(tags=["nodes"], route_class=LargeBodyRoute)

NodeName = Annotated[StorableText, Path(min_length=1, max_length=200)]
NewNodeName = Annotated[LineText, Path(min_length=1, max_length=200)]


@router.put(
    "/v1/nodes/{name}",
    response_model=Node,
    responses={201: {"model": Node, "description": "The node is new"}, **MESSAGE_PROBLEMS},
)
async def register_node(
    name: NewNodeName, registration: NodeRegistration, response: Response, service: ServiceDependency
) -> Node:
    """Say what a node has; the last word counts."""
    node, is_new = await stored(service.jobs.nodes.register, name, registration)
    response.status_code = 201 if is_new else 200
    return node


@router.get("/v1/nodes", response_model=NodePage, responses={**CONDITIONAL, **problems(422, 503)})
async def list_nodes(
    request: Request,
    service: ServiceDependency,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[
        StorableText | None, Query(max_length=200, description="`next_cursor` of the page before")
    ] = None,
) -> Response:
    """Nodes by name."""
    page = await stored(service.jobs.nodes.page, limit=limit, after=cursor or "")
    return answer_if_changed(request, page)


@router.get("/v1/nodes/{name}", response_model=Node, responses={**CONDITIONAL, **problems(404, 422, 503)})
async def read_node(name: NodeName, request: Request, service: ServiceDependency) -> Response:
    """One node."""
    return answer_if_changed(request, await stored(service.jobs.nodes.get, name))


@router.post(
    "/v1/claims",
    response_model=Assignment,
    responses={
        204: {"description": "No queued job fits on the node"},
        **MESSAGE_PROBLEMS,
        **problems(404),
    },
)
async def claim_job(claim: ClaimRequest, service: ServiceDependency) -> Assignment | Response:
    """The most urgent queued job that fits into the node's free memory."""
    assignment = await stored(service.jobs.queue.claim, claim)
    return Response(status_code=204) if assignment is None else assignment
