"""What a worker says to the service, and what the answers mean for it. Loads the client when it is used.

Three things can come of a call: an answer; `Unanswered`, and the same call may succeed later; or `Refused`,
for good: said to an attempt's heartbeat it is the fence, and the worker stops its process group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any, TypeVar

from executor.errors import ExecutorError
from planner_service.client import PlannerRefused, PlannerUnreachable
from planner_service.contract.attempts import (
    MAXIMUM_DETAIL_CHARACTERS,
    MAXIMUM_LINE_CHARACTERS,
    MAXIMUM_LINES,
    Attempt,
    AttemptReport,
    AttemptRequest,
    Heartbeat,
    LogChunk,
)
from planner_service.contract.jobs import Job
from planner_service.contract.nodes import MOST_EXCEPTED, Assignment, ClaimRequest, NodeRegistration
from planner_service.contract.probes import Probe, ProbeReport
from planner_service.worker_client import NotUnderstood, WorkerClient

__all__ = [
    "MAXIMUM_DETAIL_CHARACTERS",
    "MAXIMUM_LINES",
    "MAXIMUM_LINE_CHARACTERS",
    "MOST_EXCEPTED",
    "Assignment",
    "Attempt",
    "AttemptLink",
    "Job",
    "NodeLink",
    "Refused",
    "Unanswered",
    "Unreadable",
    "answered",
    "open_attempt",
    "report_unread",
    "return_job",
    "send_profile",
    "simulated_peak_bytes",
]

LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same call may succeed."""

Answer = TypeVar("Answer")


class Unanswered(ExecutorError):
    """The service does not answer now, or is too busy to."""


class Refused(ExecutorError):
    """The service refuses the call for good; `status` is the HTTP status, `slug` the reason."""

    def __init__(self, status: int, slug: str, detail: str) -> None:
        self.status = status
        self.slug = slug
        super().__init__(f"refused with {status} {slug}: {detail}")

    def __reduce__(self) -> tuple[object, ...]:
        return (Refused, (self.status, self.slug, str(self)))


class Unreadable(ExecutorError):
    """The service gives out work that is newer than this version; the fields are those of NotUnderstood."""

    def __init__(self, reason: str, *, work_id: str, token: str = "", number: int = 0) -> None:
        self.work_id = work_id
        self.token = token
        self.number = number
        super().__init__(reason)

    def __reduce__(self) -> tuple[object, ...]:
        return (_unreadable, (str(self), self.work_id, self.token, self.number))


def _unreadable(reason: str, work_id: str, token: str, number: int) -> Unreadable:
    return Unreadable(reason, work_id=work_id, token=token, number=number)


def open_attempt(
    url: str, job_id: str, launch_token: str, *, node: str | None, engine_reference: str | None = None
) -> Attempt:
    """The next attempt at the job. Raises Unanswered, Refused and Unreadable."""
    with WorkerClient(url, token=launch_token) as client:
        request = AttemptRequest(node=node, engine_reference=engine_reference)
        return answered(lambda: client.open_attempt(job_id, request))


def return_job(url: str, job_id: str, launch_token: str, *, node: str, reason: str) -> None:
    """Give a job that was claimed back to the queue, whether it can be read or not.

    Raises Unanswered and Refused.
    """
    fields = {"outcome": "preempted", "detail": reason[:MAXIMUM_DETAIL_CHARACTERS]}
    try:
        attempt = open_attempt(url, job_id, launch_token, node=node)
    except Unreadable as unread:
        report_unread(url, unread, fields)
    else:
        with closing(AttemptLink(url, attempt)) as link:
            link.report(fields)


def report_unread(url: str, attempt: Unreadable, fields: Mapping[str, Any]) -> None:
    """How an attempt ended whose job cannot be read: fields of `AttemptReport`.

    Raises Unanswered and Refused.
    """
    report = AttemptReport.model_validate(dict(fields))
    with WorkerClient(url, token=attempt.token) as client:
        answered(lambda: client.report_unread(attempt.work_id, attempt.number, report))


def send_profile(url: str, profile: Mapping[str, Any], *, token: str | None = None) -> str:
    """Have the service keep what a probe measured; the profile's id. Raises what the client raises."""
    with WorkerClient(url, token=token) as client:
        return client.add_profile(profile).id


def simulated_peak_bytes(url: str, question: Mapping[str, Any], *, token: str | None = None) -> int:
    """The peak of a policy by the service's simulator; `question` is a `SimulationRequest`."""
    with WorkerClient(url, token=token) as client:
        return client.simulate(question).peak_bytes


class AttemptLink:
    """The calls of one attempt. Every method raises Unanswered and Refused."""

    def __init__(self, url: str, attempt: Attempt) -> None:
        self._client = WorkerClient(url, token=attempt.token)
        self._job_id = attempt.job.id
        self._number = attempt.number

    def heartbeat(self, progress: Mapping[str, Any]) -> bool:
        """Alive, and how far: fields of `Heartbeat`. True when the worker is to stop."""
        beat = Heartbeat.model_validate(dict(progress))
        return answered(lambda: self._client.heartbeat(self._job_id, self._number, beat)).cancel

    def send_logs(self, *, first_line: int, lines: list[str]) -> None:
        """Lines of the log."""
        chunk = LogChunk(first_line=first_line, lines=lines)
        answered(lambda: self._client.send_logs(self._job_id, self._number, chunk))

    def report(self, fields: Mapping[str, Any]) -> Job:
        """How the attempt ended: fields of `AttemptReport`."""
        try:
            report = AttemptReport.model_validate(dict(fields))
        except ValueError as error:  # what the service would say
            raise Refused(422, "invalid-request", str(error)) from error
        return answered(lambda: self._client.report(self._job_id, self._number, report))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class NodeLink:
    """The calls of a node's agent. Every method raises Unanswered and Refused."""

    def __init__(self, url: str, name: str, *, api_key: str | None = None) -> None:
        self._client = WorkerClient(url, token=api_key)
        self._name = name

    def register(self, facts: Mapping[str, Any]) -> None:
        """What the node has: fields of `NodeRegistration`."""
        registration = NodeRegistration.model_validate(dict(facts))
        answered(lambda: self._client.register_node(self._name, registration))

    def claim(
        self, *, memory_free_bytes: int, engines: Sequence[str], except_jobs: Sequence[str] = ()
    ) -> Assignment | None:
        """A job that fits, or None. Raises Unreadable too, as `claim_probe` does."""
        asked = {"node": self._name, "memory_free_bytes": memory_free_bytes, "engines": engines}
        claim = ClaimRequest.model_validate({**asked, "except_jobs": except_jobs})
        return answered(lambda: self._client.claim(claim))

    def claim_probe(self) -> Probe | None:
        """What the node is to measure, or None."""
        return answered(lambda: self._client.claim_probe(self._name))

    def report_probe(self, probe_id: str, findings: Mapping[str, Any]) -> Probe:
        """What was measured, or why it could not be: fields of `ProbeReport`."""
        report = ProbeReport.model_validate(dict(findings))
        return answered(lambda: self._client.report_probe(probe_id, report))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def answered(call: Callable[[], Answer]) -> Answer:
    """What `call()` gives. Raises Unanswered, Refused or Unreadable where the client could not."""
    try:
        return call()
    except NotUnderstood as work:
        given = {"work_id": work.work_id, "token": work.token}
        raise Unreadable(str(work), number=work.number, **given) from work
    except PlannerUnreachable as error:
        raise Unanswered(str(error)) from error
    except PlannerRefused as refusal:
        if refusal.status in LATER:
            raise Unanswered(str(refusal)) from refusal
        raise Refused(refusal.status, refusal.slug, str(refusal)) from refusal
