"""A service that hands jobs to a cluster's engine, and what the tests ask of its jobs."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from planner_service.client import PlannerClient
from planner_service.contract.jobs import Job
from tests.serving import Serving, start_service

MIB = 2**20
HEARTBEAT_SECONDS = 1
FINAL = {"succeeded", "failed", "cancelled"}
COMMANDS = Path(sys.executable).parent
SETUP = f"export PATH={COMMANDS}:$PATH OMP_NUM_THREADS=1"
"""Workers find this environment's commands, and leave each other the processors."""


def start(data_dir: Path, work_dir: Path, **environ: str) -> Serving:
    """A service whose heartbeats are short."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    return start_service(
        data_dir,
        "--port",
        port,
        TIGHTFIT_ENGINE_DEVICE="cpu",
        TIGHTFIT_WORK_DIR=str(work_dir),
        TIGHTFIT_HEARTBEAT_SECONDS=str(HEARTBEAT_SECONDS),
        TIGHTFIT_LEASE_SECONDS="120",
        TIGHTFIT_SAVE_SECONDS="0.5",
        TIGHTFIT_WORKER_SETUP=SETUP,
        **environ,
    )


def request(*, iterations: int = 3, hidden_size: int = 32, budget: str = "8MiB") -> dict[str, Any]:
    """A character model that is trained in seconds."""
    return {
        "model": {"kind": "gru", "hidden_size": hidden_size, "embedding_size": 16},
        "data": {"characters": 60_000},
        "sequence": {"length": 100, "batch_size": 8},
        "training": {"iterations": iterations},
        "budget": budget,
    }


def endless(**fields: Any) -> dict[str, Any]:
    """A request for a job that no machine ends before a test has cancelled it."""
    return request(iterations=10_000_000, **fields)


def long(**fields: Any) -> dict[str, Any]:
    """A request for a job that a test sees run, and cuts, well before it ends: some twenty seconds of work
    where nothing else runs.
    """
    return request(iterations=5_000, **fields)


def until(client: PlannerClient, job_id: str, condition: Callable[[Job], bool], seconds: float) -> Job:
    """The job once `condition` is true of it; fails with what the job says after `seconds`."""
    deadline = time.monotonic() + seconds
    job = client.job(job_id)
    while not condition(job):
        assert time.monotonic() < deadline, job.model_dump_json(indent=2)
        time.sleep(0.25)
        job = client.job(job_id)
    return job


def ended(job: Job) -> bool:
    """Whether nothing will happen to the job any more."""
    return job.state in FINAL


def has_trained(iterations: int) -> Callable[[Job], bool]:
    """Whether so many iterations of a running job are done."""
    return lambda job: job.state == "running" and (job.iteration or 0) >= iterations


def kept_its_promise(client: PlannerClient, job: Job) -> bool:
    """Whether the job's one measurement stayed within its budget."""
    (measured,) = client.measurements(job=job.name).measurements
    return measured.id == job.measurement_id and measured.measured_peak_bytes <= measured.budget_bytes
