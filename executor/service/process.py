"""A planning service as a child process: started on a free port, stopped at the end."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from executor.errors import ExecutorError

START_SECONDS = 60.0
"""How long the service may take to load its solvers and answer."""
_STOP_SECONDS = 10.0
_READY = "tightfit serves on "


class ServiceNotStarted(ExecutorError, RuntimeError):
    """The planning service did not come up; the message ends with what it printed."""


@contextmanager
def planning_service(data_dir: Path) -> Iterator[str]:
    """`tightfit serve` on a free port of this machine, its files under `data_dir`; gives its URL.

    Raises ServiceNotStarted when it is not ready within START_SECONDS.
    """
    tightfit = Path(sys.executable).with_name("tightfit")
    command = [str(tightfit), "serve", "--port", "0", "--data-dir", str(data_dir)]
    data_dir.mkdir(parents=True, exist_ok=True)
    log = data_dir / "service.log"
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)  # noqa: S603
        try:
            yield _url(process, log)
        finally:
            _stop(process)


def _url(process: subprocess.Popen[str], log: Path) -> str:
    assert process.stdout is not None  # noqa: S101 - for the type checker
    timer = threading.Timer(START_SECONDS, process.kill)
    timer.start()
    try:
        for line in process.stdout:
            if line.startswith(_READY):
                return line.removeprefix(_READY).strip()
    finally:
        timer.cancel()
    raise ServiceNotStarted(f"the planning service did not start: {log.read_text(encoding='utf-8').strip()}")


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
