"""/v1/measurements: what workers measured."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from planner_service.api.answers.caching import answer_if_changed
from planner_service.api.answers.large_bodies import LargeBodyRoute
from planner_service.api.errors import UnknownMeasurement
from planner_service.api.openapi import CONDITIONAL, known_before, problems
from planner_service.api.service import ServiceDependency
from planner_service.api.storage import stored
from planner_service.contract.measurements import Measurement, MeasurementPage, MeasurementReport
from planner_service.contract.texts import StorableText

router = APIRouter(tags=["measurements"], route_class=LargeBodyRoute)

Limit = Annotated[int, Query(ge=1, le=1000)]
Cursor = Annotated[
    str | None, Query(pattern=r"^[0-9]{1,18}$", description="`next_cursor` of the page before")
]
Filter = Annotated[StorableText | None, Query(max_length=200)]


@router.post(
    "/v1/measurements",
    status_code=201,
    response_model=Measurement,
    responses={
        **known_before(Measurement, "The report was sent before"),
        **problems(400, 413, 415, 422),
    },
)
async def add_measurement(
    report: MeasurementReport, response: Response, service: ServiceDependency
) -> Measurement:
    """Keep the report of a training run. Sending it again changes nothing."""
    kept, is_new = await stored(service.measurements.add, report)
    if is_new:
        service.metrics.count_measurement(report)
    response.status_code = 201 if is_new else 200
    response.headers["location"] = f"/v1/measurements/{kept.id}"
    return kept


@router.get("/v1/measurements", response_model=MeasurementPage, responses={**CONDITIONAL, **problems(422)})
async def list_measurements(
    request: Request,
    service: ServiceDependency,
    limit: Limit = 50,
    cursor: Cursor = None,
    job: Filter = None,
    plan_id: Filter = None,
) -> Response:
    """Measurements, the latest first, of all jobs or of one job or plan."""
    before = None if cursor is None else int(cursor)
    page = await stored(service.measurements.page, limit=limit, before=before, job=job, plan_id=plan_id)
    return answer_if_changed(request, page)


@router.get(
    "/v1/measurements/{measurement_id}",
    response_model=Measurement,
    responses={**CONDITIONAL, **problems(404)},
)
async def read_measurement(measurement_id: str, request: Request, service: ServiceDependency) -> Response:
    """One measurement."""
    found = await stored(service.measurements.get, measurement_id)
    if found is None:
        raise UnknownMeasurement(measurement_id)
    return answer_if_changed(request, found)


@router.delete("/v1/measurements/{measurement_id}", status_code=204, responses=problems(404, 503))
async def forget_measurement(measurement_id: StorableText, service: ServiceDependency) -> Response:
    """Forget a measurement that is wrong, and what plans have learnt from it."""
    if not await stored(service.measurements.forget, measurement_id):
        raise UnknownMeasurement(measurement_id)
    return Response(status_code=204)
