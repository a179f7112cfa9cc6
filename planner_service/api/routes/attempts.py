"""/v1/jobs/{id}/attempts: what a worker says, from its first call to its report."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from starlette.responses import Response

from planner_service.api.access.identity import WorkerToken
from planner_service.api.answers.caching import json_answer
from planner_service.api.answers.large_bodies import LargeBodyRoute
from planner_service.api.openapi import MESSAGE_PROBLEMS, problems
from planner_service.api.service import ServiceDependency
from planner_service.api.storage import stored
from planner_service.contract.attempts import (
    Attempt,
    AttemptReport,
    AttemptRequest,
    Heartbeat,
    HeartbeatReply,
    LogChunk,
)
from planner_service.contract.jobs import Job
from planner_service.store import AttemptCall

router = APIRouter(tags=["attempts"], route_class=LargeBodyRoute)

WORKER_PROBLEMS = {**MESSAGE_PROBLEMS, **problems(401, 404, 409)}


async def call_of(
    job_id: str, number: Annotated[int, Path(ge=1, le=2**31 - 1)], token: WorkerToken
) -> AttemptCall:
    """Which attempt a request speaks for."""
    return AttemptCall(job_id, number, token)


Call = Annotated[AttemptCall, Depends(call_of)]


@router.post("/v1/jobs/{job_id}/attempts", status_code=201, responses=WORKER_PROBLEMS)
async def open_attempt(
    job_id: str, attempt_request: AttemptRequest, token: WorkerToken, service: ServiceDependency
) -> Attempt:
    """Begin to work on a job: a worker's first call, with the launch token. Older attempts are stale now."""
    return await stored(service.jobs.attempts.open, job_id, token, attempt_request)


@router.post("/v1/jobs/{job_id}/attempts/{number}/heartbeat", responses=WORKER_PROBLEMS)
async def renew_attempt(heartbeat: Heartbeat, call: Call, service: ServiceDependency) -> HeartbeatReply:
    """Alive, and how far. 409 `stale-attempt`: somebody else works on the job, stop."""
    return await stored(service.jobs.attempts.heartbeat, call, heartbeat)


@router.post("/v1/jobs/{job_id}/attempts/{number}/logs", status_code=204, responses=WORKER_PROBLEMS)
async def add_attempt_logs(chunk: LogChunk, call: Call, service: ServiceDependency) -> Response:
    """Keep lines of the worker's log; a line that was sent before stays as it is."""
    await stored(service.jobs.attempts.add_logs, call, chunk)
    return Response(status_code=204)


@router.post("/v1/jobs/{job_id}/attempts/{number}/report", response_model=Job, responses=WORKER_PROBLEMS)
async def report_attempt(report: AttemptReport, call: Call, service: ServiceDependency) -> Response:
    """How the attempt ended. Late is not too late, as long as no newer attempt was opened."""
    job, is_new = await stored(service.jobs.attempts.report, call, report)
    if is_new:
        service.metrics.count_report(report.outcome)
        if report.measurement is not None:
            service.metrics.count_measurement(report.measurement)
    return json_answer(job)
