"""Attempts that an agent has started: each in a session of its own, with the memory it was given."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from executor.agent.node import PCI_ORDER
from executor.attempt.saying import say
from executor.native.environment import API_KEY, LAUNCH_TOKEN
from executor.service.link import Refused, return_job

WORKER = """\
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
from executor.cli import main
sys.exit(main())
"""
"""Asked to stop while torch is loaded, it would die without a word, and its job wait for the lease's end:
blocked signals wait until the attempt can give the job back.
"""


@dataclass(frozen=True)
class RunningAttempt:
    """One attempt's supervisor."""

    job_id: str
    memory_bytes: int
    """What the node counts as taken while it runs."""
    process: subprocess.Popen[bytes]

    @property
    def exit_status(self) -> int | None:
        """None while it runs."""
        return self.process.poll()

    def ask_to_stop(self) -> None:
        """SIGTERM: it finishes its step, saves, and gives the job back."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL; the kernel ends its trainer with it."""
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()


def start_attempt(
    *,
    job_id: str,
    launch_token: str,
    planner_url: str,
    work_dir: Path,
    node: str,
    memory_bytes: int,
    data_roots: Sequence[Path] = (),
    save_seconds: float,
    grace_seconds: float,
) -> RunningAttempt:
    """Start `tightfit-worker attempt`. It is told to stop when this process dies, however that comes.

    Raises OSError.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    arguments = [
        *("attempt", "--planner", planner_url, "--job", job_id, "--work-dir", str(work_dir), "--node", node),
        *("--memory", str(memory_bytes), "--parent", str(os.getpid())),
        *("--save-seconds", str(save_seconds), "--grace-seconds", str(grace_seconds)),
    ]
    for root in data_roots:
        arguments += ["--data-root", str(root)]
    with _log(work_dir) as log:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-c", WORKER, *arguments],
            env={**environment_of_children(os.environ), LAUNCH_TOKEN: launch_token},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return RunningAttempt(job_id, memory_bytes, process)


def give_back(job_id: str, launch_token: str, planner_url: str, *, node: str, reason: str) -> None:
    """Return a job that could not be started to the queue; else its lease would have to run out.

    Raises Unanswered.
    """
    with suppress(Refused):  # somebody else has it already
        told = f"node {node} could not start it: {reason}"
        return_job(planner_url, job_id, launch_token, node=node, reason=told)
    say(f"job {job_id}: given back: {reason}")


@contextmanager
def _log(work_dir: Path) -> Iterator[IO[bytes] | None]:
    """What supervisors say; None, for the agent's own output, where there is no room for such a file."""
    try:
        log = (work_dir / "attempts.log").open("ab")
    except OSError:
        yield None
    else:
        with log:
            yield log


def environment_of_children(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of what the agent starts. The node's key stays with the agent; GPUs are counted as the
    agent counts them.
    """
    without_key = {name: text for name, text in environ.items() if name != API_KEY}
    return {"CUDA_DEVICE_ORDER": PCI_ORDER, **without_key}
