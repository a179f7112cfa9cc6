"""/v1/probes: ask a node to measure a model, and read what it found."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from planner_service.api.answers.caching import answer_if_changed, json_answer
from planner_service.api.answers.large_bodies import LargeBodyRoute
from planner_service.api.openapi import CONDITIONAL, LOCATED, MESSAGE_PROBLEMS, problems
from planner_service.api.routes.jobs import Cursor, Limit
from planner_service.api.service import Service, ServiceDependency
from planner_service.api.storage import stored
from planner_service.contract.probes import Probe, ProbeClaim, ProbePage, ProbeReport, ProbeRequest
from planner_service.contract.texts import StorableText

router = APIRouter(tags=["probes"], route_class=LargeBodyRoute)


@router.post(
    "/v1/probes",
    status_code=201,
    response_model=Probe,
    responses={**LOCATED, **MESSAGE_PROBLEMS, **problems(404)},
)
async def request_probe(probe_request: ProbeRequest, response: Response, service: ServiceDependency) -> Probe:
    """Have a node measure a model; its agent does so as soon as it has a slot free."""
    probe = await service.jobs.request_probe(probe_request)
    response.headers["location"] = f"/v1/probes/{probe.id}"
    return probe


@router.get("/v1/probes", response_model=ProbePage, responses={**CONDITIONAL, **problems(422, 503)})
async def list_probes(
    request: Request,
    service: ServiceDependency,
    limit: Limit = 50,
    cursor: Cursor = None,
    node: Annotated[StorableText | None, Query(max_length=200)] = None,
) -> Response:
    """Probes, the latest first, of all nodes or of one."""
    before = None if cursor is None else int(cursor)
    page = await stored(service.jobs.probes.page, limit=limit, before=before, node=node)
    return answer_if_changed(request, page)


@router.get(
    "/v1/probes/{probe_id}", response_model=Probe, responses={**CONDITIONAL, **problems(404, 422, 503)}
)
async def read_probe(probe_id: StorableText, request: Request, service: ServiceDependency) -> Response:
    """A probe as it stands."""
    return answer_if_changed(request, await stored(service.jobs.probes.get, probe_id))


@router.post(
    "/v1/claims/probes",
    response_model=Probe,
    responses={204: {"description": "Nothing is to be measured on the node"}, **MESSAGE_PROBLEMS},
)
async def claim_probe(claim: ProbeClaim, service: ServiceDependency) -> Probe | Response:
    """The oldest probe that waits for the agent of a node."""
    probe = await stored(service.jobs.probes.claim, claim.node)
    return Response(status_code=204) if probe is None else probe


@router.post(
    "/v1/probes/{probe_id}/report", response_model=Probe, responses={**MESSAGE_PROBLEMS, **problems(404)}
)
async def report_probe(probe_id: StorableText, report: ProbeReport, service: ServiceDependency) -> Response:
    """Say what was measured, or why it could not be; the first report counts."""
    return json_answer(await stored(_end, service, probe_id, report))


def _end(service: Service, probe_id: str, report: ProbeReport) -> Probe:
    probe = service.jobs.probes.get(probe_id)
    if probe.state in ("succeeded", "failed"):
        return probe
    profile_id = None if report.profile is None else service.profiles.add(report.profile)[0].id
    return service.jobs.probes.end(probe_id, profile_id=profile_id, detail=report.detail)
