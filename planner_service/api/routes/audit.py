"""/v1/audit: who did what."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from planner_service.api.answers.caching import answer_if_changed
from planner_service.api.openapi import CONDITIONAL, problems
from planner_service.api.service import ServiceDependency
from planner_service.api.storage import stored
from planner_service.contract.audit import AuditPage
from planner_service.contract.texts import StorableText

router = APIRouter(tags=["operations"])

Filter = Annotated[StorableText | None, Query(max_length=200)]


@router.get("/v1/audit", response_model=AuditPage, responses={**CONDITIONAL, **problems(422, 503)})
async def list_audit_entries(
    request: Request,
    service: ServiceDependency,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[
        str | None, Query(pattern=r"^[0-9]{1,18}$", description="`next_cursor` of the page before")
    ] = None,
    caller: Filter = None,
    action: Filter = None,
) -> Response:
    """What callers changed, and what they were not allowed to, the latest first.

    Only where the service asks who they are; what it does not ask is not known.
    """
    page = await stored(
        service.audit.page,
        limit=limit,
        before=None if cursor is None else int(cursor),
        caller=caller,
        action=action,
    )
    return answer_if_changed(request, page)
