"""A real service: its own process, its own data folder, real sockets and signals.

The fixture `service` is one process for the whole test run; tests that kill, fill or starve a
service start their own with `start_service`.
"""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

START = "import sys; from planner_service.cli import main; sys.exit(main())"
READY_SECONDS = 60.0
STOP_SECONDS = 20.0

CHAIN: dict[str, Any] = {
    "model": {
        "kind": "chain",
        "stages": [
            {
                "count": 100,
                "forward_cost": 1,
                "taped_forward_cost": 1,
                "backward_cost": 2,
                "state_bytes": 1,
                "tape_bytes": 4,
            }
        ],
    },
    "memory": {"device_budget_bytes": 60},
    "strategy": "auto",
}
"""A plan request that is answered in milliseconds."""


def chain_request(*, budget_bytes: int = 60, count: int = 100) -> dict[str, Any]:
    """`CHAIN` with another budget or length."""
    (run,) = CHAIN["model"]["stages"]
    model = {**CHAIN["model"], "stages": [{**run, "count": count}]}
    return {**CHAIN, "model": model, "memory": {"device_budget_bytes": budget_bytes}}


@dataclass
class Serving:
    """A running service."""

    process: subprocess.Popen[str]
    url: str
    data_dir: Path

    def kill(self) -> None:
        """End it as a power cut of the process would: SIGKILL, no goodbye."""
        self.process.kill()
        self._reap()

    def terminate(self) -> int:
        """SIGTERM; the exit status."""
        self.process.terminate()
        return self._reap()

    def _reap(self) -> int:
        try:
            status = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()  # leave nothing behind, whatever the test finds
            raise
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return status

    def cpu_seconds(self) -> float:
        """Processor time that the process has used so far, in seconds."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start_service(data_dir: Path, *arguments: str, **environ: str) -> Serving:
    """Start a service on a free port and wait until it says that it is ready."""
    process = launch("--port", "0", "--data-dir", str(data_dir), *arguments, **environ)
    assert process.stdout is not None
    is_ready, _, _ = select.select([process.stdout], [], [], READY_SECONDS)
    line = process.stdout.readline() if is_ready else ""  # printed once the kernels are warm
    if "http://" not in line:
        process.kill()
        raise AssertionError(f"the service did not start: {process.communicate()}")
    return Serving(process, line.split()[-1], data_dir)


def launch(*arguments: str, **environ: str) -> subprocess.Popen[str]:
    """`tightfit serve` with `arguments`, its output in pipes."""
    return subprocess.Popen(
        [sys.executable, "-c", START, "serve", *arguments],
        env={**os.environ, "TIGHTFIT_LOG_LEVEL": "error", **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One service for all tests that only talk to it."""
    running = start_service(tmp_path_factory.mktemp("service"))
    yield running
    assert running.terminate() == -signal.SIGTERM


def eventually(condition: Any, seconds: float, *, every_seconds: float = 0.02) -> bool:
    """Whether `condition()` becomes true within `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(every_seconds)
    return False


def endless_request(seed: int = 0) -> dict[str, Any]:
    """A plan request that no solver answers while a test waits: thousands of distinct stages."""
    draw = random.Random(seed)
    stages = [
        {
            "forward_cost": draw.randint(1, 9),
            "taped_forward_cost": draw.randint(1, 9),
            "backward_cost": draw.randint(1, 9),
            "state_bytes": draw.randint(1, 10**6),
            "tape_bytes": draw.randint(10**6, 4 * 10**6),
        }
        for _ in range(4_000)
    ]
    budget_bytes = sum(stage["tape_bytes"] for stage in stages) // 4
    return {
        "model": {"kind": "chain", "stages": stages},
        "memory": {"device_budget_bytes": budget_bytes},
        "strategy": "optimal",
    }
