"""What the tests of workers share: a service with short leases, jobs, and real worker processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from planner_service.contract.nodes import ClaimRequest, NodeRegistration
from planner_service.worker_client import WorkerClient
from tests.api.workers import HTTP
from tests.serving import Serving, eventually, start_service

WORKER = "import sys; from executor.cli import main; sys.exit(main())"
START_SECONDS = 120.0
"""For a worker to load torch and to plan, on a busy machine."""
POLL_SECONDS = 0.05
"""Between looks at a job: who asks all the time takes the core that the worker trains on."""
LEASES = {
    "TIGHTFIT_HEARTBEAT_SECONDS": "0.5",
    "TIGHTFIT_LOST_AFTER_SECONDS": "3",
    "TIGHTFIT_LEASE_SECONDS": "60",
}

JOB: dict[str, Any] = {
    "model": {"kind": "gru", "hidden_size": 8, "embedding_size": 4, "dtype": "float64"},
    "data": {"text": "python", "characters": 20_000},
    "sequence": {"length": 40, "batch_size": 2},
    "training": {"iterations": 300, "learning_rate": 0.01},
    "budget": "64KiB",
    "engine": "agents",
}
"""Some seconds of training."""
ENDLESS = {**JOB, "training": {"iterations": 10_000_000}}


def serving(data_dir: Path) -> Serving:
    """A service whose workers are lost after three seconds of silence."""
    return start_service(data_dir, **LEASES)


def submit(url: str, job: dict[str, Any]) -> str:
    """The id of a new job."""
    reply = HTTP.post(f"{url}/v1/jobs", json=job, headers={"Idempotency-Key": os.urandom(8).hex()})
    assert reply.status_code == 201, reply.text
    return str(reply.json()["id"])


def job_of(url: str, job_id: str) -> dict[str, Any]:
    """The job as it stands."""
    return dict(HTTP.get(f"{url}/v1/jobs/{job_id}").json())


def reaches(url: str, job_id: str, *, seconds: float = START_SECONDS, **fields: Any) -> bool:
    """Whether the job's fields become these."""

    def has() -> bool:
        job = job_of(url, job_id)
        return all(job[name] == value for name, value in fields.items())

    return eventually(has, seconds, every_seconds=POLL_SECONDS)


def trains(url: str, job_id: str, *, past: int = 3) -> bool:
    """Whether the job's iterations go past that number."""

    def does() -> bool:
        return int(job_of(url, job_id)["iteration"]) > past

    return eventually(does, START_SECONDS, every_seconds=POLL_SECONDS)


def claim(url: str, node: str = "node") -> tuple[str, str]:
    """A job for `node`: its id and the launch token."""
    with WorkerClient(url) as client:
        amount = 2**40
        client.register_node(
            node, NodeRegistration(device="cpu", memory_total_bytes=amount, memory_free_bytes=amount)
        )
        assignment = client.claim(ClaimRequest(node=node, memory_free_bytes=amount))
    assert assignment is not None
    return assignment.job.id, assignment.launch_token


class Worker:
    """A `tightfit-worker` process."""

    def __init__(self, folder: Path, *arguments: str, code: str = WORKER, **environ: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / f"worker-{os.urandom(4).hex()}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, *arguments],
                env={**os.environ, "OMP_NUM_THREADS": "1", **environ},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ended(self, seconds: float = START_SECONDS) -> int:
        """Its exit status; negative: the signal that ended it."""
        return self.process.wait(seconds)

    def trainers(self) -> list[int]:
        """The processes of its trainers, or, for an agent, of its attempts."""
        return children_of(self.process.pid)

    def close(self) -> None:
        """Kill it and everything below it."""
        below = [*self.trainers(), *(pid for child in self.trainers() for pid in children_of(child))]
        for pid in (self.process.pid, *below):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def attempt(url: str, folder: Path, *arguments: str, code: str = WORKER) -> tuple[Worker, str]:
    """A worker on the next job, claimed here; its job's id."""
    job_id, token = claim(url)
    worker = Worker(
        folder,
        *("attempt", "--planner", url, "--job", job_id, "--work-dir", str(folder / "work"), *arguments),
        code=code,
        TIGHTFIT_LAUNCH_TOKEN=token,
    )
    return worker, job_id


def agent(url: str, folder: Path, node: str, *arguments: str) -> Worker:
    """An agent; all of them share one work folder."""
    options = ("--node", node, "--work-dir", str(folder / "work"), "--poll-seconds", "0.2", *arguments)
    return Worker(folder, "agent", "--planner", url, *options)


def children_of(pid: int) -> list[int]:
    """The living children of a process, whichever of its threads started them."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for found in lists for child in found.read_text().split()]


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def report_of(folder: Path, job_id: str, number: int) -> dict[str, Any]:
    """What an attempt reported."""
    path = folder / "work" / job_id / f"attempt-{number:06d}.report.json"
    return dict(json.loads(path.read_text()))
