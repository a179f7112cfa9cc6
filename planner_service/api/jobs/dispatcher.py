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
from typing import NamedTuple

from sqlalchemy.exc import SQLAlchemyError

from planner_service.contract.jobs import Job
from planner_service.contract.nodes import Assignment
from planner_service.dispatch import (
    Engine,
    EngineBusy,
    EngineRefused,
    EngineStatus,
    EngineUnreachable,
    Launch,
    Resources,
    attempt_command,
    launch_name,
)
from planner_service.jobs import JobRefusal, UnknownJob
from planner_service.store import HandedOver, JobQueue, JobStore

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
MOST_HANDED_OVER = 50
"""In one look, to one engine."""
MOST_BUSY = 10
"""Launches that an engine does not take now, before it is offered no more in this look: there may be tens of
thousands behind a limit of submissions. So many wait for long, since others may be within it all the same."""
LONGEST_BUSY_SECONDS = 60.0
"""Before an engine that took none is offered launches again."""
MOST_RECALLED = 100
"""Jobs cancelled last whose launches are stopped once more when a service begins."""
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

    def lengthen(self, name: str, longest_seconds: float = LONGEST_WAIT_SECONDS) -> None:
        """Pause from now on, twice as long as before, unless that was long ago."""
        forgotten = self.clock() - LONGEST_WAIT_SECONDS
        self._until = {each: pause for each, pause in self._until.items() if pause[0] > forgotten}
        _, last = self._until.get(name, (0.0, FIRST_WAIT_SECONDS / 2))
        seconds = min(2 * last, longest_seconds)
        self._until[name] = (self.clock() + seconds, seconds)

    def put_off(self, name: str) -> None:
        """Pause from now on, as long as any."""
        self._until[name] = (self.clock() + LONGEST_WAIT_SECONDS, LONGEST_WAIT_SECONDS)

    def end(self, name: str) -> None:
        """All is well: the next pause is short again."""
        self._until.pop(name, None)


class _InHand(NamedTuple):
    """A launch that an engine has, or may have."""

    engine: str
    number: int
    reference: str | None
    """None: the engine has not said."""


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
        self._in_hand: dict[str, _InHand] = {}
        """By job: its last launch, as seen at the last look."""
        self._unanswered: dict[str, Launch] = {}
        """By job: a launch of which the engine has not said yet what it calls it."""
        self._recalled: set[str] = set()
        """Engines that were told of jobs that were cancelled before this service began."""

    async def run(self) -> None:
        """Look until cancelled."""
        while self._engines:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await asyncio.to_thread(self.look)
            except SQLAlchemyError as error:  # the next look may find the database again
                log.warning("nothing dispatched: %s", error, extra={"action": "dispatch_skipped"})

    def look(self) -> None:
        """Once through all engines; a fault of one is a pause for that one. Raises SQLAlchemyError."""
        for engine in self._engines.values():
            if not self._waits.is_over(engine.name):
                continue
            details = {"action": "engine_unreachable", "engine": engine.name}
            try:
                self._look_at(engine)
            except EngineUnreachable as error:
                self._waits.lengthen(engine.name)
                log.warning("%s", error, extra=details)
            except SQLAlchemyError:
                raise
            except Exception:  # a fault of ours with one engine must not end the task for all of them
                self._waits.lengthen(engine.name)
                log.exception("engine %s: nothing dispatched", engine.name, extra=details)
            else:
                self._waits.end(engine.name)

    def _look_at(self, engine: Engine) -> None:
        if engine.name not in self._recalled:
            self._in_hand.update(self._former_launches(engine))
            self._recalled.add(engine.name)
        live = self._queue.live([engine.name])
        self._stop_what_ended(engine, live)
        self._reconcile(engine, live)
        room = MOST_HANDED_OVER
        if engine.most_unfinished is not None:
            room = min(room, engine.most_unfinished - len(live))
        if room > 0 and self._waits.is_over(_submissions_to(engine)):
            waiting = self._queue.queued_for([engine.name], limit=room, may_go=self._waits.is_over)
            if waiting:
                self._offer(engine, waiting)

    def _offer(self, engine: Engine, waiting: Sequence[Job]) -> None:
        """Hand over what the engine takes."""
        not_taken: list[Job] = []
        has_taken = False
        for job in waiting:
            if self._hand_over(engine, job):
                has_taken = True
                continue
            not_taken.append(job)
            if len(not_taken) == MOST_BUSY:
                for each in not_taken:
                    self._waits.put_off(each.id)
                break
        if has_taken:
            self._waits.end(_submissions_to(engine))
        else:
            self._waits.lengthen(_submissions_to(engine), LONGEST_BUSY_SECONDS)

    def _former_launches(self, engine: Engine) -> dict[str, _InHand]:
        """Launches of jobs that were cancelled: a former service may have ended before it said so."""
        former = self._queue.cancelled([engine.name], limit=MOST_RECALLED)
        return {each.job.id: _InHand(engine.name, each.number, each.job.engine_reference) for each in former}

    def _stop_what_ended(self, engine: Engine, live: Sequence[HandedOver]) -> None:
        """Launches of jobs that were cancelled before a worker could hear of it."""
        living = {each.job.id for each in live}
        for job_id, held in list(self._in_hand.items()):
            if held.engine == engine.name and job_id not in living:
                if self._state_of(job_id) in {"cancelled", None}:
                    self._stop(engine, job_id, held)
                del self._in_hand[job_id]
                self._unanswered.pop(job_id, None)
                self._over_since.pop(job_id, None)

    def _state_of(self, job_id: str) -> str | None:
        """None when the job is gone."""
        try:
            return self._jobs.get(job_id).state
        except UnknownJob:
            return None

    def _stop(self, engine: Engine, job_id: str, held: _InHand) -> None:
        if held.reference is None:
            engine.withdraw(launch_name(job_id, held.number))
        else:
            engine.cancel(held.reference)

    def _reconcile(self, engine: Engine, live: Sequence[HandedOver]) -> None:
        """Ask the engine about the jobs that it has."""
        references = [each.job.engine_reference for each in live if each.job.engine_reference is not None]
        statuses = engine.statuses(references) if references else {}
        for each in live:
            job, reference = each.job, each.job.engine_reference
            if reference is not None:
                self._in_hand[job.id] = _InHand(engine.name, each.number, reference)
                self._follow(engine, each, reference, statuses[reference])
            elif job.id in self._unanswered and self._unanswered[job.id].number == each.number:
                self._submit(engine, self._unanswered[job.id])
            else:
                # Another service hands it over just now, or one ended before it noted the name: then the
                # token of that launch is lost.
                self._wait_or_give_up(each, "a service stopped while it was handed over", GRACE_SECONDS)

    def _follow(self, engine: Engine, held: HandedOver, reference: str, status: EngineStatus) -> None:
        job = held.job
        if job.cancel_requested:
            engine.cancel(reference)
        if status.state in {"waiting", "running"}:
            self._over_since.pop(job.id, None)
            return
        grace_seconds = 0.0 if job.state == "assigned" else GRACE_SECONDS
        self._wait_or_give_up(held, f"{engine.name}: {status.state} {status.detail}".strip(), grace_seconds)

    def _wait_or_give_up(self, held: HandedOver, detail: str, grace_seconds: float) -> None:
        since = self._over_since.setdefault(held.job.id, self._clock())
        if self._clock() - since >= grace_seconds:
            self._give_up(held.job.id, held.number, detail)

    def _give_up(self, job_id: str, number: int, detail: str) -> None:
        """Back to our queue, and not at once to the engine again."""
        self._over_since.pop(job_id, None)
        self._in_hand.pop(job_id, None)
        self._unanswered.pop(job_id, None)
        self._waits.lengthen(job_id)
        self._queue.give_up(job_id, detail, number=number)
        log.warning("job %s came back: %s", job_id, detail, extra={"action": "job_came_back", "job": job_id})

    def _hand_over(self, engine: Engine, job: Job) -> bool:
        """Whether the engine was not too busy for it."""
        try:
            resources = self._resources_of(job, engine.name)
            assignment = self._queue.hand_over(
                job.id, kind=resources.device, memory_bytes=resources.memory_bytes
            )
        except JobRefusal:  # cancelled, or in other hands, since it was listed
            return True
        except EngineRefused as refusal:
            self._queue.refuse(job.id, str(refusal))
            return True
        launch = self._launch(assignment, resources)
        self._in_hand[job.id] = _InHand(engine.name, launch.number, None)
        self._unanswered[job.id] = launch
        return self._submit(engine, launch)

    def _submit(self, engine: Engine, launch: Launch) -> bool:
        """Submit a launch and note what the engine calls it; whether the engine was not too busy for it.

        Where no answer comes, the same launch is submitted again: under its name the engine finds it.
        """
        job_id = launch.job_id
        # The one before may be there, if its answer or the service that waited for it was lost.
        if launch.number > 1:
            engine.withdraw(launch_name(job_id, launch.number - 1))
        try:
            reference = engine.submit(launch)
        except EngineRefused as refusal:
            self._unanswered.pop(job_id, None)
            self._queue.refuse(job_id, str(refusal))
            return True
        except EngineBusy as busy:
            self._give_up(job_id, launch.number, str(busy))
            return False
        self._unanswered.pop(job_id, None)
        self._in_hand[job_id] = _InHand(engine.name, launch.number, reference)
        if not self._queue.note_engine(job_id, reference, number=launch.number):
            engine.cancel(reference)  # cancelled, or given to somebody else, in the meantime
            return True
        details = {"action": "job_handed_over", "job": job_id, "engine": engine.name}
        log.info("job %s is %s at %s", job_id, reference, engine.name, extra=details)
        return True

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
            ran_before=job.attempt > 0,
        )


def _submissions_to(engine: Engine) -> str:
    """The name of the pause in which the engine is offered no launches, and otherwise looked after."""
    return f"submissions to {engine.name}"
