"""The application. Nothing happens at import: `create_app` takes its settings as an argument."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from planner_service.api import openapi
from planner_service.api.access.gate import Gate
from planner_service.api.access.own_name import OwnName
from planner_service.api.answers.ready_plans import ReadyPlans
from planner_service.api.answers.rehearsal import rehearse
from planner_service.api.body_limit import BodyLimit
from planner_service.api.farewell import Farewell
from planner_service.api.handlers import add_handlers
from planner_service.api.routes import FAST_ROUTES, ROUTERS
from planner_service.api.service import running_service
from planner_service.api.watching.metrics import CountRequests, Metrics
from planner_service.api.watching.request_ids import RequestIds
from planner_service.api.watching.telemetry import telemetry_of
from planner_service.security import ApiKey
from planner_service.settings import Settings

DESCRIPTION = (
    "Takes a recurrent or chain-shaped model, a sequence length and a byte budget; returns the execution "
    "policy that trains exactly inside that budget in the least time."
)


def create_app(
    settings: Settings, *, on_ready: Callable[[], None] = lambda: None, own_keys: Sequence[ApiKey] = ()
) -> FastAPI:
    """The service as an ASGI application; its database opens and its kernels warm up at start-up.

    `on_ready` is called once, when the kernels are warm. `own_keys` count beside those in the database.
    """
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with running_service(settings, metrics, on_ready, own_keys=own_keys) as service:
            app.state.service = service
            await rehearse(app)
            yield

    app = FastAPI(
        title="tightfit",
        version=version("tightfit"),
        description=DESCRIPTION,
        lifespan=lifespan,
        responses=openapi.ANY_PROBLEM,
        generate_unique_id_function=lambda route: route.name,
        redirect_slashes=False,
        openapi_url=None,  # `routes.description` serves it
        docs_url=None,  # both pages would load scripts from a content network
        redoc_url=None,
        telemetry=telemetry_of(settings),
    )
    app.router.routes.extend(FAST_ROUTES)
    for router in ROUTERS:
        app.include_router(router)
    add_handlers(app)
    app.add_middleware(BodyLimit, maximum_bytes=settings.max_body_bytes)
    if not settings.otlp_url:  # a span is named by the route that answered
        app.add_middleware(ReadyPlans)
    if settings.asks_who:
        app.add_middleware(Gate, settings=settings)
    else:
        app.add_middleware(OwnName)
    app.add_middleware(Farewell)
    app.add_middleware(CountRequests, metrics=metrics)
    app.add_middleware(RequestIds)
    app.openapi = lambda: openapi.document(app)  # type: ignore[method-assign]
    return app
