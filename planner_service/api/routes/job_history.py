"""/v1/jobs/{id}/events, …/logs and …/attempts: what happened to a job."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Query
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from planner_service.api.answers.caching import answer_if_changed
from planner_service.api.jobs.event_stream import BATCH_EVENTS, ReadAfter, event_stream
from planner_service.api.openapi import CONDITIONAL, problems
from planner_service.api.service import Service, ServiceDependency
from planner_service.api.storage import stored
from planner_service.contract.attempts import AttemptList
from planner_service.contract.job_events import JobEvent, JobLogPage

router = APIRouter(tags=["jobs"])


class EventStream(StreamingResponse):
    """Server-sent events."""

    media_type = "text/event-stream"


LastEventId = Annotated[
    str | None,
    Header(pattern=r"^[0-9]{1,18}$", description="The id of the last event that the caller has seen"),
]


@router.get(
    "/v1/jobs/{job_id}/events",
    response_class=EventStream,
    responses={
        200: {"model": JobEvent, "description": "Each event's data; its id is the event's number"},
        204: {"description": "The job is over and the caller has seen every event: do not reconnect"},
        **problems(404, 422, 503),
    },
)
async def watch_job(job_id: str, service: ServiceDependency, last_event_id: LastEventId = None) -> Response:
    """What happens to the job, as it happens, from its first event or after `Last-Event-ID` on.

    The stream ends with the job. Comments keep a silent connection open.
    """
    read_after = partial(service.jobs.history.events_after, job_id, limit=BATCH_EVENTS)
    seen = int(last_event_id or 0)
    found = await stored(read_after, seen)
    if found.is_over and not found.events:
        return Response(status_code=204)
    return EventStream(
        _stream(service, job_id, read_after, seen),
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


async def _stream(service: Service, job_id: str, read_after: ReadAfter, seen: int) -> AsyncIterator[bytes]:
    """The events, and one look at the database for all such streams."""
    has_more = partial(service.event_watch.has_more, job_id)
    with service.event_watch.watching(job_id):
        async for part in event_stream(read_after, seen, lambda: service.is_stopping, has_more):
            yield part


@router.get(
    "/v1/jobs/{job_id}/logs", response_model=JobLogPage, responses={**CONDITIONAL, **problems(404, 422, 503)}
)
async def read_job_logs(
    job_id: str,
    request: Request,
    service: ServiceDependency,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    cursor: Annotated[
        str | None, Query(pattern=r"^[0-9]{1,9}\.[0-9]{1,9}$", description="`next_cursor` of the page before")
    ] = None,
    attempt: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
) -> Response:
    """What the job's workers wrote, the oldest line first, of all attempts or of one."""
    last_attempt, _, last_line = (cursor or "0.0").partition(".")
    read = partial(service.jobs.history.logs, job_id, limit=limit, attempt=attempt)
    page = await stored(read, after=(int(last_attempt), int(last_line)))
    return answer_if_changed(request, page)


@router.get(
    "/v1/jobs/{job_id}/attempts",
    response_model=AttemptList,
    responses={**CONDITIONAL, **problems(404, 503)},
)
async def list_attempts(job_id: str, request: Request, service: ServiceDependency) -> Response:
    """Every attempt at the job, the first one first."""
    found = await stored(service.jobs.history.attempts, job_id)
    return answer_if_changed(request, AttemptList(attempts=found))
