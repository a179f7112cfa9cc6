"""What the routes share: settings, stores, the planner and its threads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any, TypeVar, cast

from fastapi import Depends
from pydantic import BaseModel
from sqlalchemy import Engine
from starlette.requests import Request
from starlette.responses import Response

from planner_service.api.access.credentials import Credentials, require_keys
from planner_service.api.answers.plan_library import PlanLibrary
from planner_service.api.answers.planning_pool import PlanningPool
from planner_service.api.answers.profile_library import ProfileLibrary
from planner_service.api.answers.reply_cache import ReplyCache
from planner_service.api.background import kept_going
from planner_service.api.forgetting import Retention, forget_what_is_old
from planner_service.api.jobs.admission_desk import AdmissionDesk
from planner_service.api.jobs.dispatching import cluster_holes, dispatcher_of
from planner_service.api.jobs.event_watch import EventWatch
from planner_service.api.jobs.job_desk import JobDesk
from planner_service.api.jobs.lease_keeper import LeaseKeeper
from planner_service.api.storage import stored
from planner_service.api.watching.metrics import Metrics
from planner_service.contract import PlacementReply, PlacementRequest, PlanReply, PlanRequest, content_id
from planner_service.planning import Planner
from planner_service.security import ApiKey
from planner_service.settings import Settings
from planner_service.solvers import Cancellation, warm_up
from planner_service.store import (
    AuditStore,
    MeasurementStore,
    PlanStore,
    ProfileStore,
    open_database,
)

log = logging.getLogger(__name__)

Question = TypeVar("Question", bound=BaseModel)
UseCase = Callable[[Question, Cancellation], BaseModel]


def _reply(use_case: UseCase[Question], question: Question, cancellation: Cancellation) -> bytes:
    return use_case(question, cancellation).model_dump_json().encode()


class Service:
    """One running service; lives as long as the application."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        planner: Planner,
        metrics: Metrics,
        *,
        own_keys: Sequence[ApiKey] = (),
    ) -> None:
        """Raises InvalidSetting where a setting needs a library that is not installed."""
        self.settings = settings
        self.engine = engine
        self.planner = planner
        self._cache = ReplyCache(settings.reply_cache_bytes)
        self.pool = PlanningPool(
            threads=settings.planning_threads,
            queue_length=settings.queue_length,
            timeout_seconds=settings.planning_timeout_seconds,
            most_per_caller=settings.planning_per_caller if settings.asks_who else 0,
            on_end=metrics.count_planning,
        )
        self.plans = PlanLibrary(planner, PlanStore(engine), self._cache, self.pool)
        self.credentials = Credentials(settings, engine, own_keys)
        self.audit = AuditStore(engine)
        self.measurements = MeasurementStore(engine)
        self.profiles = ProfileLibrary(ProfileStore(engine))
        self.jobs = JobDesk(engine, planner, settings)
        self.event_watch = EventWatch(self.jobs.history.event_counts)
        self.admission = AdmissionDesk(planner, PlanStore(engine), cluster_holes(settings))
        self.leases = LeaseKeeper(
            self.jobs.queue,
            lease_seconds=settings.lease_seconds,
            lost_after_seconds=settings.lost_after_seconds,
            on_lost_attempt=metrics.count_lost_attempt,
        )
        self.metrics = metrics
        metrics.watch(
            "tightfit_planning_unfinished",
            "Computations that run or wait for a thread",
            lambda: self.pool.unfinished,
        )
        metrics.watch(
            "tightfit_reply_cache_hits", "Look-ups that found an answer in memory", lambda: self._cache.hits
        )
        metrics.watch(
            "tightfit_reply_cache_misses", "Look-ups that found none there", lambda: self._cache.misses
        )
        metrics.watch(
            "tightfit_reply_cache_bytes", "Answers kept in memory, in bytes", lambda: self._cache.used_bytes
        )
        self.not_ready_reason: str | None = "the solvers' kernels are being compiled or loaded"
        """None when the service can answer at full speed."""
        self.is_stopping = False
        """True once the process was asked to end: streams without an end of their own end now."""

    async def resolved(self, question: Question) -> Question:
        """The question with the profile that it means, where it names one or a device (`ProfileLibrary`)."""
        if getattr(question, "profile_id", None) is None and getattr(question, "device_name", None) is None:
            return question
        return cast("Question", await stored(self.profiles.resolved, cast("Any", question)))

    async def answer(self, use_case: UseCase[Question], question: Question, request: Request) -> Response:
        """The answer of a use case whose replies are not kept in the store."""
        question = await self.resolved(question)
        question_id = await asyncio.to_thread(content_id, question, self.planner.version)
        reply = self._cache.get(question_id)
        if reply is None:
            reply = await self.pool.answer(question_id, partial(_reply, use_case, question), request)
            self._cache.put(question_id, reply)
        return Response(reply, media_type="application/json")

    def place(self, question: PlacementRequest, cancellation: Cancellation) -> PlacementReply:
        """Where jobs fit; the plans that are made for it are kept. For a planning thread."""

        def make_plan(plan_request: PlanRequest) -> PlanReply:
            plan_id = self.planner.plan_id(plan_request)
            return PlanReply.model_validate_json(self.plans.make(plan_id, plan_request, cancellation))

        return self.planner.place(question, cancellation, make_plan)

    async def warm_up(self, on_ready: Callable[[], None]) -> None:
        """Compile or load every kernel, off the event loop."""
        try:
            await asyncio.to_thread(warm_up)
        except Exception:
            log.exception("warm-up failed", extra={"action": "warm_up_failed"})
            self.not_ready_reason = "the solvers' kernels cannot be compiled; the log says why"
            return
        self.not_ready_reason = None
        log.info("ready", extra={"action": "ready"})
        on_ready()

    async def forget_what_is_old(self) -> None:
        """Delete what is past its retention, now and every hour."""
        settings = self.settings
        await forget_what_is_old(
            [
                Retention(
                    what="plans",
                    age_seconds=settings.plan_retention_seconds,
                    delete_batch=self.plans.delete_older_than,
                    afterwards=self.plans.look_again,
                ),
                Retention(
                    what="jobs",
                    age_seconds=settings.job_retention_seconds,
                    delete_batch=self.jobs.delete_older_than,
                ),
                Retention(
                    what="measurements",
                    age_seconds=settings.measurement_retention_seconds,
                    delete_batch=self.measurements.delete_older_than,
                ),
                Retention(
                    what="audit entries",
                    age_seconds=settings.audit_retention_seconds,
                    delete_batch=self.audit.delete_older_than,
                ),
            ]
        )


@asynccontextmanager
async def running_service(
    settings: Settings,
    metrics: Metrics,
    on_ready: Callable[[], None],
    *,
    own_keys: Sequence[ApiKey] = (),
) -> AsyncIterator[Service]:
    """A service with its database open and its background work started.

    Raises DatabaseUnavailable, KeysNeeded and InvalidSetting.
    """
    engine = await asyncio.to_thread(open_database, settings.store_url)
    require_keys(settings, engine)
    service = Service(settings, engine, Planner(), metrics, own_keys=own_keys)
    work = (
        partial(service.warm_up, on_ready),
        service.forget_what_is_old,
        service.leases.run,
        dispatcher_of(service.jobs, settings).run,
    )
    background = [asyncio.create_task(kept_going(part)) for part in work]
    try:
        yield service
    finally:
        for task in background:
            task.cancel()
        service.admission.close()
        await service.pool.close()
        engine.dispose()


def service_of(request: Request) -> Service:
    """The service that a request is for."""
    return cast("Service", request.app.state.service)


async def _service_of(request: Request) -> Service:  # a plain function would be sent to a thread
    return service_of(request)


ServiceDependency = Annotated[Service, Depends(_service_of)]
