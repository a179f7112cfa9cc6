"""Every store of jobs on one database, and short words for what tests do with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine

from planner_service.contract.attempts import Attempt, AttemptReport, AttemptRequest, Heartbeat
from planner_service.contract.jobs import Job, JobRequest
from planner_service.contract.nodes import Assignment, ClaimRequest, NodeRegistration
from planner_service.jobs import DeviceNeeds, JobNeeds
from planner_service.store import AttemptCall, AttemptStore, JobHistory, JobQueue, JobStore, NodeStore

NODE_BYTES = 10_000
NEEDS = DeviceNeeds(held_bytes=100, least_bytes=300, needed_bytes=1100)


def job_request(**fields: Any) -> JobRequest:
    """A small job with a budget of 1000 bytes."""
    record = {
        "model": {"kind": "lstm", "hidden_size": 8},
        "sequence": {"length": 50, "batch_size": 2},
        "training": {"iterations": 3},
        "budget": 1000,
        **fields,
    }
    return JobRequest.model_validate(record)


def needs(needed_bytes: int = 1100) -> JobNeeds:
    """What a job asks of a node, on both kinds of device."""
    device = DeviceNeeds(held_bytes=100, least_bytes=300, needed_bytes=needed_bytes)
    return JobNeeds(cpu=device, cuda=device)


class Desk:
    """The stores of one database."""

    def __init__(self, engine: Engine, clock: Callable[[], float] | None = None) -> None:
        ticking = {} if clock is None else {"clock": clock}
        self.jobs = JobStore(engine, **ticking)
        self.queue = JobQueue(engine, **ticking)
        self.attempts = AttemptStore(engine, **ticking)
        self.nodes = NodeStore(engine, **ticking)
        self.history = JobHistory(engine)

    def node(self, name: str = "a", **fields: Any) -> str:
        """Register a node; its name."""
        told = {
            "device": "cpu",
            "memory_total_bytes": NODE_BYTES,
            "memory_free_bytes": NODE_BYTES,
            **fields,
        }
        self.nodes.register(name, NodeRegistration.model_validate(told))
        return name

    def submit(self, *, needed_bytes: int = 1100, engine: Any = "agents", **fields: Any) -> Job:
        """Queue a job."""
        return self.jobs.submit(job_request(**fields), needs(needed_bytes), engine=engine, caller="t")[0]

    def claim(self, node: str = "a", free_bytes: int = NODE_BYTES) -> Assignment | None:
        """What the node is given."""
        return self.queue.claim(ClaimRequest(node=node, memory_free_bytes=free_bytes))

    def take(self, node: str = "a") -> Attempt:
        """Claim a job and open an attempt at it."""
        given = self.claim(node)
        assert given is not None
        return self.open(given)

    def open(self, given: Assignment) -> Attempt:
        """Open an attempt with the launch token of an assignment."""
        return self.attempts.open(given.job.id, given.launch_token, AttemptRequest())

    def beat(self, attempt: Attempt, **fields: Any) -> bool:
        """Send a heartbeat; whether the worker is to stop."""
        return self.attempts.heartbeat(call_of(attempt), Heartbeat.model_validate(fields)).cancel

    def report(self, attempt: Attempt, outcome: str, **fields: Any) -> Job:
        """Report the end of an attempt."""
        report = AttemptReport.model_validate({"outcome": outcome, **fields})
        return self.attempts.report(call_of(attempt), report)[0]

    def lose(self, job_id: str) -> None:
        """End the job's lease, as after a silence."""
        (lease,) = [lease for lease in self.queue.leases() if lease.job_id == job_id]
        assert self.queue.expire(lease)

    def told(self, job_id: str) -> list[tuple[str, str]]:
        """Kind and state of the job's events, in order."""
        from planner_service.contract.job_events import JobEvent

        found = self.history.events_after(job_id, 0, limit=10_000).events
        events = [JobEvent.model_validate_json(event) for _, _, event in found]
        assert [event.number for event in events] == list(range(1, len(events) + 1))
        return [(event.kind, event.state) for event in events]


def call_of(attempt: Attempt) -> AttemptCall:
    """The attempt's right to speak."""
    return AttemptCall(attempt.job.id, attempt.number, attempt.token)
