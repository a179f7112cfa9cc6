"""The use cases of jobs: everything that routes and engines ask about them, off the event loop."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from sqlalchemy import Engine

from planner_service.contract.jobs import Engine as JobEngine
from planner_service.contract.jobs import Job, JobRequest
from planner_service.contract.probes import Probe, ProbeRequest
from planner_service.planning import Planner
from planner_service.security import require_text_within
from planner_service.settings import Settings
from planner_service.store import (
    AttemptStore,
    JobHistory,
    JobQueue,
    JobStore,
    NodeStore,
    ProbeStore,
    delete_ended_jobs,
)

log = logging.getLogger(__name__)


class JobDesk:
    """Jobs, who works on them, and what became of them.

    The stores' methods block: call them with `asyncio.to_thread`. Whoever dispatches to an engine uses
    `queue`: `queued_for`, `hand_over`, `note_engine`, `live`, `give_up`.
    """

    def __init__(self, engine: Engine, planner: Planner, settings: Settings) -> None:
        self._planner = planner
        self._settings = settings
        self._engine = engine
        self.jobs = JobStore(engine)
        self.queue = JobQueue(engine, lease_seconds=settings.lease_seconds)
        self.attempts = AttemptStore(
            engine,
            heartbeat_seconds=settings.heartbeat_seconds,
            lost_after_seconds=settings.lost_after_seconds,
        )
        self.history = JobHistory(engine)
        self.nodes = NodeStore(engine)
        self.probes = ProbeStore(engine)

    async def submit(
        self, request: JobRequest, *, caller: str, idempotency_key: str | None
    ) -> tuple[Job, bool]:
        """Estimate what the job needs, and queue it; the job, and whether it is new.

        Raises TextOutsideRoots, what `Planner.job_needs` refuses, and IdempotencyKeyReused.
        """
        await self._require_text(request.data.text)
        needs = await asyncio.to_thread(self._planner.job_needs, request)
        queue = partial(
            self.jobs.submit,
            request,
            needs,
            engine=self._engine_of(request),
            caller=caller,
            idempotency_key=idempotency_key,
        )
        job, is_new = await asyncio.to_thread(queue)
        log.info("job submitted", extra={"action": "job_submitted", "job": job.id, "caller": caller})
        return job, is_new

    async def request_probe(self, request: ProbeRequest) -> Probe:
        """Queue a probe for a node. Raises TextOutsideRoots and UnknownNode."""
        await self._require_text(request.data.text)
        return await asyncio.to_thread(self.probes.add, request)

    async def _require_text(self, text: str) -> None:
        await asyncio.to_thread(require_text_within, text, self._settings.data_root_folders)

    def _engine_of(self, request: JobRequest) -> JobEngine:
        default: JobEngine = self._settings.engine  # type: ignore[assignment]  # checked by Settings
        return request.engine or default

    def delete_older_than(self, age_seconds: float) -> int:
        """Forget jobs and probes that ended more than `age_seconds` ago; return how many jobs they were."""
        self.probes.delete_older_than(age_seconds)
        return delete_ended_jobs(self._engine, age_seconds)
