"""/v1/jobs: submit, read, list and cancel training runs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query
from starlette.requests import Request
from starlette.responses import Response

from planner_service.api.access.identity import CallerDependency
from planner_service.api.answers.caching import answer_if_changed, json_answer
from planner_service.api.answers.large_bodies import LargeBodyRoute
from planner_service.api.openapi import CONDITIONAL, MESSAGE_PROBLEMS, known_before, problems
from planner_service.api.service import ServiceDependency
from planner_service.api.storage import stored
from planner_service.contract.jobs import Job, JobPage, JobRequest, JobState

router = APIRouter(tags=["jobs"], route_class=LargeBodyRoute)

Limit = Annotated[int, Query(ge=1, le=1000)]
Cursor = Annotated[
    str | None, Query(pattern=r"^[0-9]{1,18}$", description="`next_cursor` of the page before")
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=200,
        pattern=r"^[\x20-\x7e]+$",
        description="Any text that the caller makes up for this request; sending both again makes no second "
        "job. An IETF draft (draft-ietf-httpapi-idempotency-key-header), no standard.",
    ),
]


@router.post(
    "/v1/jobs",
    status_code=201,
    response_model=Job,
    responses={**known_before(Job, "The key was sent before"), **MESSAGE_PROBLEMS},
)
async def submit_job(
    job_request: JobRequest,
    response: Response,
    service: ServiceDependency,
    caller: CallerDependency,
    idempotency_key: IdempotencyKey = None,
) -> Job:
    """Queue a training run."""
    job, is_new = await service.jobs.submit(job_request, caller=caller.name, idempotency_key=idempotency_key)
    response.status_code = 201 if is_new else 200
    response.headers["location"] = f"/v1/jobs/{job.id}"
    return job


@router.get("/v1/jobs", response_model=JobPage, responses={**CONDITIONAL, **problems(422, 503)})
async def list_jobs(
    request: Request,
    service: ServiceDependency,
    state: JobState | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """Jobs, the latest first, of all states or of one."""
    before = None if cursor is None else int(cursor)
    page = await stored(service.jobs.page, limit=limit, before=before, state=state)
    return answer_if_changed(request, page)


@router.get("/v1/jobs/{job_id}", response_model=Job, responses={**CONDITIONAL, **problems(404, 503)})
async def read_job(job_id: str, request: Request, service: ServiceDependency) -> Response:
    """A job as it stands."""
    return answer_if_changed(request, await stored(service.jobs.read, job_id))


@router.post("/v1/jobs/{job_id}/cancel", response_model=Job, responses=problems(404, 409, 503))
async def cancel_job(job_id: str, service: ServiceDependency) -> Response:
    """Stop a job: at once while it waits, else at its worker's next heartbeat (`cancel_requested`)."""
    return json_answer(await stored(service.jobs.jobs.cancel, job_id))
