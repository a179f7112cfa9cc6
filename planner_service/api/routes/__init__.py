"""The resources, one file each."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.routing import Route

from planner_service.api.routes import (
    attempts,
    audit,
    comparisons,
    description,
    frontiers,
    health,
    job_history,
    jobs,
    kubernetes,
    measurements,
    nodes,
    placements,
    plans,
    probes,
    profiles,
    simulations,
)

ROUTERS: tuple[APIRouter, ...] = (
    plans.router,
    frontiers.router,
    comparisons.router,
    simulations.router,
    placements.router,
    measurements.router,
    profiles.router,
    jobs.router,
    job_history.router,
    attempts.router,
    nodes.router,
    probes.router,
    audit.router,
    kubernetes.router,
    health.router,
)
FAST_ROUTES: tuple[Route, ...] = (plans.read_plan_route, description.openapi_route)
"""Plain Starlette routes, for what must not pay for FastAPI's ways."""


def allowed_methods(path: str) -> list[str]:
    """The methods that are served at `path`, sorted."""
    routes = [*FAST_ROUTES, *(route for router in ROUTERS for route in router.routes)]
    methods = [
        route.methods or set()
        for route in routes
        if isinstance(route, Route) and route.path_regex.match(path)
    ]
    return sorted(set().union(*methods))
