"""The worker beside the service: an agent as a child process, kept running until the service ends."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from planner_service.settings import Settings, environment_of_workers

RESTART_SECONDS = 5.0
STOP_SECONDS = 70.0
"""An agent gives its jobs half a minute for their step, and half a minute to report."""


class WorkerNotInstalled(Exception):
    """What is installed here cannot train."""

    def __init__(self) -> None:
        super().__init__("--with-worker needs torch: install the extra, `pip install 'tightfit[worker]'`")


class LocalWorker:
    """An agent that takes this service's jobs, those of the engine `local` too.

    Raises WorkerNotInstalled.
    """

    def __init__(self, settings: Settings, url: str, environ: Mapping[str, str], *, api_key: str) -> None:
        if find_spec("torch") is None:
            raise WorkerNotInstalled
        self._command = _command(settings, url)
        self._environ = {**environment_of_workers(environ), "TIGHTFIT_API_KEY": api_key}
        self._thread = threading.Thread(target=self._keep_running, name="local worker", daemon=True)
        self._ending = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it is started again whenever it ends by itself."""
        self._thread.start()

    def stop(self) -> None:
        """SIGTERM: every job finishes its step and is given back. Returns when the agent has ended."""
        self._ending.set()
        if self._process is not None:
            self._process.terminate()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    def _keep_running(self) -> None:
        # The kernel ends the agent with the thread that started it, so this one waits for it.
        while not self._ending.is_set():
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                self._command, env=self._environ, stdin=subprocess.DEVNULL, start_new_session=True
            )
            if self._ending.is_set():
                self._process.terminate()
            self._process.wait()
            self._ending.wait(RESTART_SECONDS)


def _command(settings: Settings, url: str) -> list[str]:
    work_dir = Path(settings.work_dir) if settings.work_dir else settings.data_dir / "jobs"
    return [
        *(sys.executable, "-m", "executor.cli", "agent", "--local", "--planner", url),
        *("--node", f"{platform.node()}-local", "--work-dir", str(work_dir.resolve())),
        *("--slots", str(settings.local_workers), "--parent", str(os.getpid())),
        *("--save-seconds", str(settings.save_seconds)),
        *(f"--data-root={folder.resolve()}" for folder in settings.data_root_folders),
    ]
