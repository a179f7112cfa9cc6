"""/healthz, /readyz and /metrics: is the process alive, can it answer, what does it do.

Some load balancers, and `wget --spider`, ask for the headers alone.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import Response

from planner_service.api.errors import NotReady, StorageStalled
from planner_service.api.openapi import problems
from planner_service.api.service import Service, ServiceDependency
from planner_service.api.storage import within
from planner_service.planning import PLANNER_VERSION
from planner_service.store.database import NEWEST_REVISION, schema_revision

router = APIRouter(tags=["operations"])

LOOK_SECONDS = 2.0
"""For the database to answer whoever asks how the service is."""


class PrometheusText(Response):
    """Prometheus's text format."""

    media_type = CONTENT_TYPE_LATEST


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"
    planner_version: str = PLANNER_VERSION


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz")
async def health() -> Health:
    """Whether the process is alive."""
    return Health()


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", responses=problems(503))
async def readiness(service: ServiceDependency) -> Health:
    """Whether plans are answered at full speed and kept: kernels warm, database open and of this version."""
    if service.is_stopping:
        raise NotReady("the service is being stopped")
    if service.not_ready_reason:
        raise NotReady(service.not_ready_reason)
    await within(LOOK_SECONDS, partial(_require_database, service))
    return Health()


@router.get("/metrics", response_class=PrometheusText)
async def read_metrics(service: ServiceDependency) -> Response:
    """Figures for Prometheus."""
    jobs = await _job_counts(service)
    return PrometheusText(service.metrics.text(jobs))


async def _job_counts(service: Service) -> dict[str, int]:
    """Jobs by state; none while the database does not answer: the other figures are needed then."""
    try:
        return await within(LOOK_SECONDS, service.jobs.jobs.counts)
    except (SQLAlchemyError, StorageStalled):
        return {}


def _require_database(service: Service) -> None:
    try:
        revision = schema_revision(service.engine)
    except SQLAlchemyError as error:
        raise NotReady(f"the database does not answer: {type(error).__name__}") from error
    if revision != NEWEST_REVISION:
        raise NotReady(f"the database's schema is {revision}, this version needs {NEWEST_REVISION}")
