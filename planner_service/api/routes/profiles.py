"""/v1/profiles: what probes measured, and how true it has been."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from planner_service.api.answers.caching import answer_if_changed
from planner_service.api.answers.large_bodies import LargeBodyRoute
from planner_service.api.openapi import CONDITIONAL, MESSAGE_PROBLEMS, known_before, problems
from planner_service.api.service import ServiceDependency
from planner_service.api.storage import stored
from planner_service.contract import ProfileRecord
from planner_service.contract.stored_profiles import ProfilePage, StoredProfile
from planner_service.contract.texts import StorableText

router = APIRouter(tags=["profiles"], route_class=LargeBodyRoute)

Filter = Annotated[StorableText | None, Query(max_length=200)]


@router.post(
    "/v1/profiles",
    status_code=201,
    response_model=StoredProfile,
    responses={
        **known_before(StoredProfile, "The profile was sent before"),
        **MESSAGE_PROBLEMS,
    },
)
async def add_profile(
    profile: ProfileRecord, response: Response, service: ServiceDependency
) -> StoredProfile:
    """Keep what a probe measured. Plans that name its device use it from now on."""
    kept, is_new = await stored(service.profiles.add, profile)
    response.status_code = 201 if is_new else 200
    response.headers["location"] = f"/v1/profiles/{kept.id}"
    return kept


@router.get("/v1/profiles", response_model=ProfilePage, responses={**CONDITIONAL, **problems(422, 503)})
async def list_profiles(
    request: Request,
    service: ServiceDependency,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: Annotated[
        str | None, Query(pattern=r"^[0-9]{1,18}$", description="`next_cursor` of the page before")
    ] = None,
    device_name: Filter = None,
    cell: Filter = None,
) -> Response:
    """Profiles, the latest first, of all devices and cells or of one."""
    page = await stored(
        service.profiles.page,
        limit=limit,
        before=None if cursor is None else int(cursor),
        device_name=device_name,
        cell=cell,
    )
    return answer_if_changed(request, page)


@router.get(
    "/v1/profiles/{profile_id}",
    response_model=StoredProfile,
    responses={**CONDITIONAL, **problems(404, 422, 503)},
)
async def read_profile(profile_id: StorableText, request: Request, service: ServiceDependency) -> Response:
    """One profile, with the margins that runs have taught and the errors before and after calibration."""
    return answer_if_changed(request, await stored(service.profiles.get, profile_id))


@router.delete("/v1/profiles/{profile_id}", status_code=204, responses=problems(404, 503))
async def forget_profile(profile_id: StorableText, service: ServiceDependency) -> Response:
    """Forget a profile that is wrong: plans and estimates rest on the others. Plans made with it stay."""
    await stored(service.profiles.forget, profile_id)
    return Response(status_code=204)
