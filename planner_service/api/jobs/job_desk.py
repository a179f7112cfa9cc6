"""The use cases of jobs: everything that routes and engines ask about them, off the event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

from sqlalchemy import Engine

from planner_service.api.storage import stored
from planner_service.contract.jobs import Engine as JobEngine
from planner_service.contract.jobs import Job, JobPage, JobRequest, JobState
from planner_service.contract.probes import Probe, ProbeRequest
from planner_service.dispatch import claimed_engines, require_engine
from planner_service.jobs import DeviceKind, Offer, why_it_waits
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

    The stores' methods block: call them with `stored`. Whoever dispatches to an engine uses
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

        Raises TextOutsideRoots, EngineNotConfigured, what `Planner.job_needs` refuses, IdempotencyKeyReused.
        """
        engine = self._engine_of(request)
        require_engine(engine, self._settings)
        await self._require_text(request.data.text)
        needs = await asyncio.to_thread(self._planner.job_needs, request)
        queue = partial(
            self.jobs.submit,
            request,
            needs,
            engine=engine,
            caller=caller,
            idempotency_key=idempotency_key,
        )
        job, is_new = await stored(lambda: self._queued(queue))
        log.info("job submitted", extra={"action": "job_submitted", "job": job.id, "caller": caller})
        return job, is_new

    def read(self, job_id: str) -> Job:
        """The job, and why it waits where nobody could claim it. Blocks. Raises UnknownJob."""
        return self._explained([self.jobs.get(job_id)])[0]

    def page(self, *, limit: int, before: int | None, state: JobState | None) -> JobPage:
        """Some jobs, the latest first, those that nobody could claim with the reason. Blocks."""
        page = self.jobs.page(limit=limit, before=before, state=state)
        return page.model_copy(update={"jobs": self._explained(page.jobs)})

    def _explained(self, found: Sequence[Job]) -> list[Job]:
        claimed = claimed_engines(self._settings)
        waits = [job.state == "queued" and job.engine in claimed for job in found]
        if not any(waits):
            return list(found)
        offers = self.nodes.offers()
        return [_explained(job, offers) if wait else job for job, wait in zip(found, waits, strict=True)]

    async def request_probe(self, request: ProbeRequest) -> Probe:
        """Queue a probe for a node. Raises TextOutsideRoots and UnknownNode."""
        await self._require_text(request.data.text)
        return await stored(self.probes.add, request)

    async def _require_text(self, text: str) -> None:
        await asyncio.to_thread(require_text_within, text, self._settings.data_root_folders)

    def _queued(self, submit: Callable[[], tuple[Job, bool]]) -> tuple[Job, bool]:
        job, is_new = submit()
        return self._explained([job])[0], is_new

    def _engine_of(self, request: JobRequest) -> JobEngine:
        default: JobEngine = self._settings.default_engine  # type: ignore[assignment]  # checked by Settings
        return request.engine or default

    def delete_older_than(self, age_seconds: float) -> int:
        """Forget some of the jobs and probes that ended more than `age_seconds` ago; return how many they
        were, 0 when none are left.
        """
        return self.probes.delete_older_than(age_seconds) + delete_ended_jobs(self._engine, age_seconds)


def _explained(job: Job, offers: Sequence[Offer]) -> Job:
    """A queued job with the reason why none of the workers will be given it, where there is one."""
    needed: dict[DeviceKind, int] = {"cpu": job.needed_bytes.cpu, "cuda": job.needed_bytes.cuda}
    why = why_it_waits(job.engine, needed, offers)
    told = [part for part in (job.detail, why) if part]
    return job.model_copy(update={"detail": "; ".join(told) or None})
