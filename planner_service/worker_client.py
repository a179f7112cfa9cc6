"""The worker's half of the typed client: nodes, claims, attempts. No torch, no server code.

A worker speaks with two kinds of tokens: an API key for its node (where the service asks for keys), and
per job a launch token, then the attempt's own token, which are worth nothing for any other job.
"""

from __future__ import annotations

from urllib.parse import quote

import httpx
from pydantic import ValidationError

from planner_service.client import PlannerClient
from planner_service.connection import PlannerError
from planner_service.contract.attempts import (
    Attempt,
    AttemptReport,
    AttemptRequest,
    Heartbeat,
    HeartbeatReply,
    LogChunk,
)
from planner_service.contract.base import Answer, Message
from planner_service.contract.jobs import Job
from planner_service.contract.nodes import Assignment, ClaimRequest, Node, NodeRegistration
from planner_service.contract.probes import Probe, ProbeClaim, ProbeReport

MOST_REASONS = 3
"""What differs in work that cannot be read: so much of it is told."""


class NotUnderstood(PlannerError):
    """The service gives out work of which this version does not know a field or a value: it is older.

    `work_id` is the job's or the probe's; `token` and `number` are what the answer gave with it: a claim's
    launch token, or an attempt's own token and number.
    """

    def __init__(self, reason: str, *, work_id: str, token: str = "", number: int = 0) -> None:
        self.work_id = work_id
        self.token = token
        self.number = number
        super().__init__(f"newer than the tightfit of this machine, which does not know {reason}")


class _Id(Answer):
    id: str


class _UnreadAssignment(Answer):
    job: _Id
    launch_token: str


class _UnreadAttempt(Answer):
    number: int
    token: str


class WorkerClient(PlannerClient):
    """Talks to one service on behalf of a node or an attempt; `token` goes with every call.

    Every method raises PlannerUnreachable and PlannerRefused, and NotUnderstood those that are given work.
    """

    def __init__(self, url: str, *, token: str | None = None, timeout_seconds: float = 10.0) -> None:
        super().__init__(url, timeout_seconds=timeout_seconds, api_key=token)

    def register_node(self, name: str, registration: NodeRegistration) -> Node:
        """Say what a node has: at the start, and whenever it changes."""
        return self._parsed(self._message("PUT", f"/v1/nodes/{quote(name, safe='')}", registration), Node)

    def claim(self, claim: ClaimRequest) -> Assignment | None:
        """A job that fits the node, or None when there is none."""
        content = self._claimed("/v1/claims", claim)
        if content is None:
            return None
        try:
            return Assignment.model_validate_json(content)
        except ValidationError as error:
            unread = self._read(content, _UnreadAssignment, "Assignment")
            reason = _what_differs(error)
            raise NotUnderstood(reason, work_id=unread.job.id, token=unread.launch_token) from error

    def claim_probe(self, node: str) -> Probe | None:
        """What the node is to measure, or None."""
        content = self._claimed("/v1/claims/probes", ProbeClaim(node=node))
        if content is None:
            return None
        try:
            return Probe.model_validate_json(content)
        except ValidationError as error:
            raise NotUnderstood(_what_differs(error), work_id=self._read(content, _Id, "Probe").id) from error

    def report_probe(self, probe_id: str, report: ProbeReport) -> Probe:
        """What was measured, or why it could not be; the first report counts."""
        path = f"/v1/probes/{quote(probe_id, safe='')}/report"
        return self._parsed(self._message("POST", path, report), Probe)

    def open_attempt(self, job_id: str, request: AttemptRequest) -> Attempt:
        """The first call of every worker; the client's token is the launch token."""
        content = self._send(self._message("POST", f"{_job_path(job_id)}/attempts", request)).content
        try:
            return Attempt.model_validate_json(content)
        except ValidationError as error:
            unread = self._read(content, _UnreadAttempt, "Attempt")
            given = {"work_id": job_id, "token": unread.token}
            raise NotUnderstood(_what_differs(error), number=unread.number, **given) from error

    def heartbeat(self, job_id: str, number: int, beat: Heartbeat) -> HeartbeatReply:
        """Alive, and how far; the client's token is the attempt's, here and below."""
        return self._parsed(self._attempt(job_id, number, "heartbeat", beat), HeartbeatReply)

    def send_logs(self, job_id: str, number: int, chunk: LogChunk) -> None:
        """Lines of the worker's log; sending a line again changes nothing."""
        self._send(self._attempt(job_id, number, "logs", chunk))

    def report(self, job_id: str, number: int, report: AttemptReport) -> Job:
        """How the attempt ended; the same report again is answered the same."""
        return self._parsed(self._attempt(job_id, number, "report", report), Job)

    def report_unread(self, job_id: str, number: int, report: AttemptReport) -> None:
        """The same of a job that this version cannot read, which the answer would be."""
        self._send(self._attempt(job_id, number, "report", report))

    def _claimed(self, path: str, claim: Message) -> bytes | None:
        response = self._send(self._message("POST", path, claim))
        return None if response.status_code == 204 else response.content

    def _attempt(self, job_id: str, number: int, what: str, message: Message) -> httpx.Request:
        return self._message("POST", f"{_job_path(job_id)}/attempts/{number}/{what}", message)

    def _message(self, method: str, path: str, message: Message) -> httpx.Request:
        headers = {"content-type": "application/json"}
        return self._request(method, path, content=message.model_dump_json(), headers=headers)


def _what_differs(error: ValidationError) -> str:
    """The fields that are new, or hold what is new: `job.request.model.kind`."""
    paths = [".".join(str(part) for part in each["loc"]) for each in error.errors(include_input=False)]
    return ", ".join(dict.fromkeys(paths[:MOST_REASONS]))


def _job_path(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"
