"""A worker's life over HTTP, step by step, for tests that interrupt it between any two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import httpx

from tests.serving import Serving

HTTP = httpx.Client(timeout=30)
"""One client for all: making one costs more than a request."""
JOB: dict[str, Any] = {
    "model": {"kind": "lstm", "hidden_size": 8},
    "sequence": {"length": 50, "batch_size": 2},
    "training": {"iterations": 3},
    "budget": "64MiB",
    "engine": "agents",
    "priority": 100,  # before whatever other tests have left in the queue
}
NODE = {"device": "cpu", "memory_total_bytes": 2**30, "memory_free_bytes": 2**30}
MEASUREMENT = {
    "job": "j",
    "budget_bytes": 2**26,
    "projected_peak_bytes": 900,
    "measured_peak_bytes": 890,
    "seconds_per_iteration": 1,
    "iterations": 3,
    "torch": "2",
    "device": "cpu",
}


class Life:
    """One job and its worker: what was sent, and what was answered so far."""

    def __init__(self, name: str, service: Serving) -> None:
        self.name = name
        self.service = service
        self.job_id = ""
        self.number = 0
        self.launch_token = ""
        self.token = ""
        self.steps: list[Callable[[], httpx.Response]] = [
            self.submit,
            self.register,
            self.claim,
            self.open,
            self.beat,
            self.log,
            self.report,
        ]

    def send(self, method: str, path: str, body: Any, *, token: str = "", **headers: str) -> httpx.Response:
        """One request; raises httpx.HTTPError when nobody answers."""
        if token:
            headers["authorization"] = f"Bearer {token}"
        return HTTP.request(method, self.service.url + path, json=body, headers=headers)

    def submit(self) -> httpx.Response:
        """Queue the job; the same key every time."""
        body = {**JOB, "name": self.name}
        answer = self.send("POST", "/v1/jobs", body, **{"idempotency-key": self.name})
        self.job_id = answer.json()["id"] if answer.is_success else ""
        return answer

    def register(self) -> httpx.Response:
        """Register the node."""
        return self.send("PUT", f"/v1/nodes/{self.name}", NODE)

    def claim(self) -> httpx.Response:
        """Claim a job."""
        answer = self.send("POST", "/v1/claims", {"node": self.name, "memory_free_bytes": 2**30})
        if answer.status_code == 200:
            self.launch_token = answer.json()["launch_token"]
        return answer

    def open(self) -> httpx.Response:
        """Open an attempt."""
        answer = self.send("POST", f"/v1/jobs/{self.job_id}/attempts", {}, token=self.launch_token)
        if answer.is_success:
            self.number, self.token = answer.json()["number"], answer.json()["token"]
        return answer

    def beat(self) -> httpx.Response:
        """Send a heartbeat."""
        return self._tell("heartbeat", {"iteration": 2, "loss": 1.5})

    def log(self, first_line: int = 1, lines: Sequence[str] = ("one", "two")) -> httpx.Response:
        """Send the same two lines, or others."""
        return self._tell("logs", {"first_line": first_line, "lines": [*lines]})

    def report(self, outcome: str = "succeeded") -> httpx.Response:
        """Report the end, with a measurement."""
        return self._tell("report", {"outcome": outcome, "iteration": 3, "measurement": MEASUREMENT})

    def _tell(self, what: str, body: Any) -> httpx.Response:
        path = f"/v1/jobs/{self.job_id}/attempts/{self.number}/{what}"
        return self.send("POST", path, body, token=self.token)

    def read(self, what: str = "") -> Any:
        """The job, its `logs` or its `attempts`."""
        path = f"/v1/jobs/{self.job_id}/{what}".rstrip("/")
        return HTTP.get(self.service.url + path).json()
