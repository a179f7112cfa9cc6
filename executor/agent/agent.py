"""The agent: registers its node, measures what it is asked to, claims jobs that fit, each in its own process.

It holds no state worth saving. A service that goes away is waited for; jobs that run go on meanwhile. An
agent that is killed takes its attempts with it, and the service gives their jobs to others.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from executor.agent.node import NodeFacts, node_facts
from executor.agent.probing import RunningProbe, start_probe
from executor.agent.running import RunningAttempt, give_back, start_attempt
from executor.agent.work_folder import UnusableWorkFolder, require_work_folder
from executor.attempt.child import die_with_parent
from executor.attempt.saying import say
from executor.attempt.supervisor import GRACE_SECONDS
from executor.memory.budget import FREE
from executor.service.link import MOST_EXCEPTED, Assignment, NodeLink, Refused, Unanswered, Unreadable

POLL_SECONDS = 2.0
"""Between two questions for a job while a slot is free."""
REGISTER_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 30.0
UNKNOWN_NODE = "unknown-node"
"""The service's word for a node that it has never heard of."""
REPORT_SECONDS = 30.0
"""For the attempts to report, after the grace in which they finish their step."""


@dataclass(frozen=True, kw_only=True)
class AgentOptions:
    """The command line."""

    planner_url: str
    node: str
    work_dir: Path
    slots: int = 1
    """Jobs at a time; they share the node's memory."""
    memory_bytes: int | None = None
    """What the agent may give away of the device; None: all of it."""
    data_roots: Sequence[Path] = ()
    engines: Sequence[str] = ("agents",)
    api_key: str | None = field(default=None, repr=False)
    poll_seconds: float = POLL_SECONDS
    save_seconds: float = 60.0
    grace_seconds: float = GRACE_SECONDS
    parent: int | None = None
    """Process that the agent must not outlive."""
    jobs: int | None = None
    """Leave after that many jobs; None: never."""


class Agent:
    """One node's agent."""

    def __init__(self, options: AgentOptions, facts: Callable[[], NodeFacts] = node_facts) -> None:
        self._options = options
        self._facts = facts
        self._link = NodeLink(options.planner_url, options.node, api_key=options.api_key)
        self._running: list[RunningAttempt] = []
        self._probe: RunningProbe | None = None
        self._started = 0
        self._registered_at = float("-inf")
        self._stop = threading.Event()
        self._pause = 0.0
        self._kind = "cpu"
        self._unreadable: deque[str] = deque(maxlen=MOST_EXCEPTED)
        """Jobs that are newer than this version."""

    def run(self) -> int:
        """Work until SIGTERM or Ctrl-C; 0, or 2 when the service refuses this node and no job runs any more,
        or its work folder is none when it begins.
        """
        for sign in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sign, self._on_signal)
        if self._options.parent is not None:
            die_with_parent(self._options.parent, signal.SIGTERM)
        try:
            require_work_folder(self._options.work_dir)
            while not self._stop.is_set() and not self._is_done():
                self._round()
                self._stop.wait(self._pause or self._options.poll_seconds)
        except Refused as refusal:
            say(f"the service refuses this node: {refusal}")
            return 2
        except UnusableWorkFolder as error:
            say(f"tightfit-worker: {error}")
            return 2
        finally:
            self._stop_all()
            self._link.close()
        return 0

    def _on_signal(self, _signal: int, _frame: FrameType | None) -> None:
        self._stop.set()

    def _is_done(self) -> bool:
        return self._options.jobs is not None and self._started >= self._options.jobs and not self._running

    def _round(self) -> None:
        """Collect what has ended, tell the service that the node is there, take what fits."""
        self._collect()
        try:
            self._register()
            self._report_probe()
            require_work_folder(self._options.work_dir)
            if self._probe is None and self._has_slot():
                self._claim_probe()
            while self._may_claim() and self._claim():
                pass
        except (Unanswered, UnusableWorkFolder, OSError) as error:
            self._pause = min(max(1.0, 2 * self._pause), LONGEST_PAUSE_SECONDS)
            say(f"asking again in {self._pause:g} s: {error}")
        except Refused as refusal:
            if refusal.slug == UNKNOWN_NODE:
                self._registered_at = float("-inf")  # its database is another one: the next round registers
                say(f"registering again: {refusal}")
            elif self._running:  # a key that has expired is not theirs: they have tokens of their own
                self._pause = LONGEST_PAUSE_SECONDS
                say(f"no more jobs for this node, those that run go on: {refusal}")
            else:
                raise
        else:
            self._pause = 0.0

    def _collect(self) -> None:
        ended = [attempt for attempt in self._running if attempt.exit_status is not None]
        for attempt in ended:
            self._running.remove(attempt)
            say(f"job {attempt.job_id}: attempt ended with exit status {attempt.exit_status}")

    def _register(self) -> None:
        now = time.monotonic()
        if now - self._registered_at < REGISTER_SECONDS:
            return
        facts = self._facts()
        self._kind = facts.device_kind
        registration = facts.registration(most_bytes=self._options.memory_bytes)
        self._link.register({**registration, "engines": tuple(self._options.engines)})
        if self._registered_at == float("-inf"):
            say(f"node {self._options.node}: {facts.device}, asking {self._options.planner_url} for jobs")
        self._registered_at = now

    def _may_claim(self) -> bool:
        limit = self._options.jobs
        is_left = limit is None or self._started < limit
        return is_left and self._has_slot()

    def _has_slot(self) -> bool:
        taken = len(self._running) + (self._probe is not None)
        return taken < self._options.slots and not self._stop.is_set()

    def _claim_probe(self) -> None:
        """Start measuring what somebody asked this node to; it takes a slot, and all that is free."""
        try:
            asked = self._link.claim_probe()
        except Unreadable as probe:
            say(f"probe {probe.work_id}: cannot be measured here: {probe}")
            with suppress(Refused):  # forgotten meanwhile
                self._link.report_probe(probe.work_id, {"detail": str(probe)})
            return
        if asked is None:
            return
        self._probe = start_probe(
            probe_id=asked.id,
            request=asked.request.model_dump(mode="json"),
            work_dir=self._options.work_dir,
            memory_bytes=self._free_bytes(),
            data_roots=self._options.data_roots,
        )
        say(f"probe {asked.id}: started, {self._probe.memory_bytes} bytes")

    def _report_probe(self) -> None:
        """Send what the probe found, once it has ended; kept until somebody takes it."""
        ended = self._probe
        if ended is None or ended.exit_status is None:
            return
        try:
            self._link.report_probe(ended.probe_id, ended.findings())
        except Refused as refusal:  # forgotten meanwhile: nobody wants it any more
            say(f"probe {ended.probe_id}: its report is not wanted: {refusal}")
        else:
            say(f"probe {ended.probe_id}: ended with exit status {ended.exit_status}, reported")
        self._probe = None

    def _claim(self) -> bool:
        """Ask for a job and start it; whether there was one. Raises OSError where it cannot be started: then
        others may have it.
        """
        free = self._free_bytes()
        try:
            assignment = self._link.claim(
                memory_free_bytes=free, engines=self._options.engines, except_jobs=[*self._unreadable]
            )
        except Unreadable as job:  # for others, who may be newer: asked for again it would come again
            self._unreadable.append(job.work_id)
            self._give_back(job.work_id, job.token, job)
            return True
        if assignment is None:
            return False
        try:
            self._start(assignment, free)
        except OSError as error:
            self._give_back(assignment.job.id, assignment.launch_token, error)
            raise
        return True

    def _give_back(self, job_id: str, launch_token: str, reason: Exception) -> None:
        options = self._options
        give_back(job_id, launch_token, options.planner_url, node=options.node, reason=str(reason))

    def _free_bytes(self) -> int:
        """What the device has free, and no more than the agent may give away beside its running jobs."""
        facts = self._facts()
        limit = facts.memory_total_bytes if self._options.memory_bytes is None else self._options.memory_bytes
        given = sum(attempt.memory_bytes for attempt in self._running)
        given += 0 if self._probe is None else self._probe.memory_bytes
        return max(0, min(facts.memory_free_bytes, limit - given))

    def _start(self, assignment: Assignment, free_bytes: int) -> None:
        job = assignment.job
        # A job that takes what is free takes all of it: nobody knows what it will come to.
        needed = job.needed_bytes.cuda if self._kind == "cuda" else job.needed_bytes.cpu
        taken = free_bytes if job.budget == FREE else min(free_bytes, needed)
        self._running.append(
            start_attempt(
                job_id=job.id,
                launch_token=assignment.launch_token,
                planner_url=self._options.planner_url,
                work_dir=self._options.work_dir,
                node=self._options.node,
                memory_bytes=taken,
                data_roots=self._options.data_roots,
                save_seconds=self._options.save_seconds,
                grace_seconds=self._options.grace_seconds,
            )
        )
        self._started += 1
        say(f"job {job.id} ({job.name}): started, {taken} bytes")

    def _stop_all(self) -> None:
        """Every attempt finishes its step and gives its job back; what does not is killed."""
        if self._probe is not None:
            self._probe.kill()  # it has nothing to save: it is given again
        for attempt in self._running:
            attempt.ask_to_stop()
        deadline = time.monotonic() + self._options.grace_seconds + REPORT_SECONDS
        while time.monotonic() < deadline and any(a.exit_status is None for a in self._running):
            time.sleep(0.05)
        for attempt in self._running:
            if attempt.exit_status is None:
                attempt.kill()
        self._collect()
