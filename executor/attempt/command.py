"""`tightfit-worker attempt`: one attempt at one job, under every engine the same."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from executor.attempt.child import die_with_parent
from executor.attempt.data_roots import within_roots
from executor.attempt.saying import say
from executor.attempt.stopping import STOP_SIGNALS, Stopping, StopRequested
from executor.attempt.supervisor import GRACE_SECONDS, Ending, Supervisor
from executor.attempt.task import Task, job_of
from executor.jobs.job import InvalidJob
from executor.native.environment import LAUNCH_TOKEN
from executor.service.link import (
    Attempt,
    AttemptLink,
    Refused,
    Unanswered,
    Unreadable,
    open_attempt,
    report_unread,
)

OPEN_SECONDS = 120.0
"""How long a service that does not answer is asked for the attempt."""


@dataclass(frozen=True, kw_only=True)
class AttemptOptions:
    """The command line."""

    planner_url: str
    job_id: str
    work_dir: Path
    """Weights files and logs of each job go into a folder of their own below it."""
    node: str | None = None
    data_roots: Sequence[Path] = ()
    memory_bytes: int | None = None
    save_seconds: float = 60.0
    grace_seconds: float = GRACE_SECONDS
    """For the trainer to finish its step when it is asked to stop."""
    parent: int | None = None
    """Process that this one must not outlive."""


def run_attempt(options: AttemptOptions) -> Ending:
    """Open the attempt, train, report. Asked to stop before it trains, it gives the job back."""
    stopping = Stopping()
    stopping.listen_to_both()
    if options.parent is not None:
        die_with_parent(options.parent, STOP_SIGNALS[0])
    launch_token = os.environ.pop(LAUNCH_TOKEN, "")
    if not launch_token:
        return _refuse(f"{LAUNCH_TOKEN} is not set: engines and agents set it for the jobs that they start")
    try:
        attempt = _opened(options, launch_token, stopping)
    except (Refused, Unanswered) as error:
        return _refuse(str(error))
    except Unreadable as job:
        return _report_unread(options.planner_url, job)
    try:
        task = _task(options, attempt)
        link = AttemptLink(options.planner_url, attempt)
        stopping.check()
        grace = options.grace_seconds
        return Supervisor(task, attempt, link, grace_seconds=grace, stopping=stopping).run()
    except StopRequested as request:
        return _reported(link, {"outcome": "preempted", "detail": str(request)}, Ending.GIVEN_BACK)
    except (InvalidJob, OSError) as error:  # an attempt that ends without a word costs the lease
        return _report_unfit(AttemptLink(options.planner_url, attempt), error)


def _opened(options: AttemptOptions, launch_token: str, stopping: Stopping) -> Attempt:
    deadline, pause = time.monotonic() + OPEN_SECONDS, 0.5
    while True:
        try:
            return open_attempt(options.planner_url, options.job_id, launch_token, node=options.node)
        except Unanswered:
            if stopping.is_requested or time.monotonic() + pause > deadline:
                raise
            time.sleep(pause)
            pause = min(2 * pause, 10.0)


def _task(options: AttemptOptions, attempt: Attempt) -> Task:
    request = attempt.job.request
    job = within_roots(job_of(request.model_dump(), attempt.job.budget), options.data_roots)
    work_dir = options.work_dir / attempt.job.id
    work_dir.mkdir(parents=True, exist_ok=True)
    return Task(
        job=job,
        job_id=attempt.job.id,
        name=attempt.job.name,
        number=attempt.number,
        work_dir=work_dir.resolve(),
        planner_url=options.planner_url,
        planner_token=attempt.token,
        strategy=request.strategy,
        maximum_slowdown_ratio=request.maximum_slowdown_ratio,
        memory_bytes=options.memory_bytes,
        save_seconds=options.save_seconds,
    )


def _report_unfit(link: AttemptLink, error: Exception) -> Ending:
    """The worker cannot even try: say so. A job that is invalid here is not tried again elsewhere."""
    is_permanent = isinstance(error, InvalidJob)
    fields = {"outcome": "error", "detail": str(error)[:4000], "is_permanent": is_permanent}
    return _reported(link, fields, Ending.FAILED)


def _report_unread(url: str, attempt: Unreadable) -> Ending:
    """The job is newer than this machine's version, as it would be at every other attempt there."""
    try:
        report_unread(url, attempt, {"outcome": "error", "detail": str(attempt), "is_permanent": True})
    except (Refused, Unanswered) as unsaid:
        _refuse(str(unsaid))
        return Ending.UNREPORTED
    say(f"tightfit-worker: {attempt}")
    return Ending.FAILED


def _reported(link: AttemptLink, fields: Mapping[str, object], ending: Ending) -> Ending:
    """Report, once, an attempt that did not train."""
    try:
        link.report(fields)
    except (Refused, Unanswered) as unsaid:
        _refuse(str(unsaid))
        return Ending.UNREPORTED
    finally:
        link.close()
    say(f"tightfit-worker: {fields['detail']}")
    return ending


def _refuse(reason: str) -> Ending:
    say(f"tightfit-worker: {reason}")
    return Ending.REFUSED
