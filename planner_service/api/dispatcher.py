"""Hands queued jobs to their engines, asks the engines what became of them, and passes cancelling on.

An engine owns its retries: nothing is handed over twice while the engine still knows it. What it has given
up goes back to our queue, and waits longer every time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from planner_service.contract.jobs import Job
from planner_service.contract.nodes import Assignment
from planner_service.dispatch import (
    Engine,
    EngineRefused,
    EngineUnreachable,
    Launch,
    Resources,
    attempt_command,
)
from planner_service.jobs import JobRefusal
from planner_service.store import JobQueue, JobStore

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
MOST_HANDED_OVER = 50
"""In one look, to one engine."""
GRACE_SECONDS = 60.0
"""Between an engine's word that a launch is over and ours that its worker will not report any more."""
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 5.0, 600.0
"""Before a job is handed over again that an engine has given up, and before an engine is asked again."""

ResourcesOf = Callable[[Job, str], Resources]


@dataclass
class _Waits:
    """Growing pauses, by name."""

    clock: Callable[[], float]
    _until: dict[str, tuple[float, float]] = field(default_factory=dict)

    def is_over(self, name: str) -> bool:
        """Whether there is no pause, or not any more."""
        return self.clock() >= self._until.get(name, (0.0, 0.0))[0]

    def lengthen(self, name: str) -> None:
        """Pause from now on, twice as long as before."""
        _, last = self._until.get(name, (0.0, FIRST_WAIT_SECONDS / 2))
        seconds = min(2 * last, LONGEST_WAIT_SECONDS)
        self._until[name] = (self.clock() + seconds, seconds)

    def end(self, name: str) -> None:
        """All is well: the next pause is short again."""
        self._until.pop(name, None)


class Dispatcher:
    """Between the queue and the engines that are handed their jobs. For one thread at a time."""

    def __init__(
        self,
        engines: Iterable[Engine],
        *,
        queue: JobQueue,
        jobs: JobStore,
        planner_url: str,
        work_dir: Path,
        save_seconds: float = 60.0,
        resources_of: ResourcesOf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engines = {engine.name: engine for engine in engines if engine.most_unfinished != 0}
        self._queue = queue
        self._jobs = jobs
        self._planner_url = planner_url
        self._work_dir = work_dir
        self._save_seconds = save_seconds
        self._resources_of = resources_of
        self._clock = clock
        self._waits = _Waits(clock)
        self._over_since: dict[str, float] = {}
        self._in_hand: dict[str, tuple[str, str]] = {}
        """By job: its engine's name and the reference there, as seen at the last look."""

    async def run(self) -> None:
        """Look until cancelled."""
        while self._engines:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await asyncio.to_thread(self.look)
            except SQLAlchemyError as error:  # the next look may find the database again
                log.warning("nothing dispatched: %s", error, extra={"action": "dispatch_skipped"})

    def look(self) -> None:
        """Once through all engines."""
        for engine in self._engines.values():
            if not self._waits.is_over(engine.name):
                continue
            try:
                self._look_at(engine)
            except EngineUnreachable as error:
                self._waits.lengthen(engine.name)
                log.warning("%s", error, extra={"action": "engine_unreachable", "engine": engine.name})
            else:
                self._waits.end(engine.name)

    def _look_at(self, engine: Engine) -> None:
        live = self._queue.live([engine.name])
        self._stop_what_ended(engine, live)
        for job in live:
            self._reconcile(engine, job)
        room = MOST_HANDED_OVER
        if engine.most_unfinished is not None:
            room = min(room, engine.most_unfinished - len(live))
        waiting = self._queue.queued_for([engine.name], limit=MOST_HANDED_OVER) if room > 0 else []
        for job in [job for job in waiting if self._waits.is_over(job.id)][:room]:
            self._hand_over(engine, job)

    def _stop_what_ended(self, engine: Engine, live: Sequence[Job]) -> None:
        """Launches of jobs that were cancelled before a worker could hear of it."""
        living = {job.id for job in live}
        for job_id, (name, reference) in list(self._in_hand.items()):
            if name == engine.name and job_id not in living:
                if self._jobs.get(job_id).state == "cancelled":
                    engine.cancel(reference)
                del self._in_hand[job_id]
                self._over_since.pop(job_id, None)

    def _reconcile(self, engine: Engine, job: Job) -> None:
        """Ask the engine about a job that it has."""
        reference = job.engine_reference
        if reference is None:
            # Another service hands it over just now, or one ended before it noted the name: then the
            # token of that launch is lost.
            self._wait_or_give_up(job, "a service stopped while it was handed over", GRACE_SECONDS)
            return
        self._in_hand[job.id] = (engine.name, reference)
        if job.cancel_requested:
            engine.cancel(reference)
        status = engine.status(reference)
        if status.state in {"waiting", "running"}:
            self._over_since.pop(job.id, None)
            return
        grace_seconds = 0.0 if job.state == "assigned" else GRACE_SECONDS
        self._wait_or_give_up(job, f"{engine.name}: {status.state} {status.detail}".strip(), grace_seconds)

    def _wait_or_give_up(self, job: Job, detail: str, grace_seconds: float) -> None:
        since = self._over_since.setdefault(job.id, self._clock())
        if self._clock() - since < grace_seconds:
            return
        self._over_since.pop(job.id)
        self._in_hand.pop(job.id, None)
        self._waits.lengthen(job.id)
        self._queue.give_up(job.id, detail)
        log.warning("job %s came back: %s", job.id, detail, extra={"action": "job_came_back", "job": job.id})

    def _hand_over(self, engine: Engine, job: Job) -> None:
        try:
            resources = self._resources_of(job, engine.name)
            assignment = self._queue.hand_over(
                job.id, kind=resources.device, memory_bytes=resources.memory_bytes
            )
        except JobRefusal:  # cancelled, or in other hands, since it was listed
            return
        except EngineRefused as refusal:
            self._queue.refuse(job.id, str(refusal))
            return
        try:
            reference = engine.submit(self._launch(assignment, resources))
        except EngineRefused as refusal:
            self._queue.refuse(job.id, str(refusal))
        except EngineUnreachable as error:
            self._queue.give_up(job.id, str(error))
            raise
        else:
            self._queue.note_engine(job.id, reference)
            self._in_hand[job.id] = (engine.name, reference)
            details = {"action": "job_handed_over", "job": job.id, "engine": engine.name}
            log.info("job %s is %s at %s", job.id, reference, engine.name, extra=details)

    def _launch(self, assignment: Assignment, resources: Resources) -> Launch:
        job = assignment.job
        work_dir = str(self._work_dir / job.id)
        return Launch(
            job_id=job.id,
            number=assignment.number,
            command=attempt_command(
                planner_url=self._planner_url,
                job_id=job.id,
                work_dir=work_dir,
                save_seconds=self._save_seconds,
                memory_bytes=resources.memory_bytes,
            ),
            launch_token=assignment.launch_token,
            work_dir=work_dir,
            resources=resources,
            priority=job.request.priority,
        )
