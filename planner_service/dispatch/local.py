"""The engine `local`: a worker process on this machine, in a process group of its own."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from planner_service.dispatch.engine import EngineRefused, EngineStatus, Launch
from planner_service.settings import environment_of_workers

GRACE_SECONDS = 10.0
"""Between asking a worker to stop and stopping it."""


class LocalEngine:
    """Starts workers as child processes; a worker outlives the service that started it.

    A reference is the process's id, its start time and its machine, so that a later process of the same id,
    or one of the same id elsewhere, is not mistaken for it: services of several machines may share a queue.
    """

    name = "local"

    def __init__(self, *, most_unfinished: int = 1, machine: str | None = None) -> None:
        """`machine`: this one's name."""
        self.most_unfinished = most_unfinished
        self._machine = platform.node() if machine is None else machine
        self._lock = threading.Lock()
        self._started: dict[str, str] = {}
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def submit(self, launch: Launch) -> str:
        """Start the worker; its output goes to `worker.log` in the work folder. Raises EngineRefused."""
        with self._lock:
            if launch.name not in self._started:
                child = _spawn(launch)
                reference = f"{child.pid}:{_start_ticks(child.pid)}@{self._machine}"
                self._started[launch.name] = reference
                self._children[reference] = child
                # Whoever asks about it last, or nobody: an ended process is taken off the system's table.
                threading.Thread(target=child.wait, name=f"wait-{child.pid}", daemon=True).start()
            return self._started[launch.name]

    def statuses(self, references: Sequence[str]) -> dict[str, EngineStatus]:
        """See `status`."""
        return {reference: self.status(reference) for reference in references}

    def status(self, reference: str) -> EngineStatus:
        """Running or ended; `missing` for a process of a former service that is gone. Of one on another
        machine, its own service and its heartbeats tell.
        """
        child = self._children.get(reference)
        if child is None and not self._is_here(reference):
            return EngineStatus("running", f"on {reference.partition('@')[2]}")
        if child is None:
            return EngineStatus("running" if _is_alive(reference) else "missing")
        code = child.poll()
        if code is None:
            return EngineStatus("running", f"process {child.pid}")
        return EngineStatus("failed" if code else "succeeded", f"exit status {code}")

    def cancel(self, reference: str) -> None:
        """SIGTERM to the worker's process group, SIGKILL after GRACE_SECONDS."""
        if self._signal(reference, signal.SIGTERM):
            timer = threading.Timer(GRACE_SECONDS, self._signal, (reference, signal.SIGKILL))
            timer.daemon = True
            timer.start()

    def withdraw(self, name: str) -> None:
        """Stop the worker that this service started under that name."""
        if name in self._started:
            self.cancel(self._started[name])

    def _signal(self, reference: str, number: signal.Signals) -> bool:
        """Send a signal to the whole group, if its leader is still the process that was started."""
        if not self._is_here(reference) or self.status(reference).state != "running":
            return False
        try:
            os.killpg(int(reference.partition(":")[0]), number)
        except ProcessLookupError:
            return False
        return True

    def _is_here(self, reference: str) -> bool:
        return reference.partition("@")[2] in {"", self._machine}


def _spawn(launch: Launch) -> subprocess.Popen[bytes]:
    folder = Path(launch.work_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "worker.log").open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - our own command
                [_executable(launch.command[0]), *launch.command[1:]],
                env=environment_of_workers(os.environ) | launch.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        raise EngineRefused("local", f"{launch.command[0]} cannot be started: {error}") from error


def _executable(name: str) -> str:
    """The command of this very installation where there is one, else the first in the path."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else name


def _is_alive(reference: str) -> bool:
    process_id, _, ticks = reference.partition("@")[0].partition(":")
    return process_id.isdecimal() and bool(ticks) and _start_ticks(int(process_id)) == ticks


def _start_ticks(process_id: int) -> str:
    """When the process was started, in clock ticks since boot; empty when there is none, or a zombie."""
    try:
        fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
