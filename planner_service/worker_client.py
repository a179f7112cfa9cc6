"""The worker's half of the typed client: nodes, claims, attempts. No torch, no server code.

A worker speaks with two kinds of tokens: an API key for its node (where the service asks for keys), and
per job a launch token, then the attempt's own token, which are worth nothing for any other job.
"""

from __future__ import annotations

from urllib.parse import quote

import httpx

from planner_service.client import PlannerClient, Reply
from planner_service.contract.attempts import (
    Attempt,
    AttemptReport,
    AttemptRequest,
    Heartbeat,
    HeartbeatReply,
    LogChunk,
)
from planner_service.contract.base import Message
from planner_service.contract.jobs import Job
from planner_service.contract.nodes import Assignment, ClaimRequest, Node, NodeRegistration
from planner_service.contract.probes import Probe, ProbeClaim, ProbeReport


class WorkerClient(PlannerClient):
    """Talks to one service on behalf of a node or an attempt; `token` goes with every call.

    Every method raises PlannerUnreachable and PlannerRefused.
    """

    def __init__(self, url: str, *, token: str | None = None, timeout_seconds: float = 10.0) -> None:
        super().__init__(url, timeout_seconds=timeout_seconds, api_key=token)

    def register_node(self, name: str, registration: NodeRegistration) -> Node:
        """Say what a node has: at the start, and whenever it changes."""
        return self._parsed(self._message("PUT", f"/v1/nodes/{quote(name, safe='')}", registration), Node)

    def claim(self, claim: ClaimRequest) -> Assignment | None:
        """A job that fits the node, or None when there is none."""
        return self._claimed(self._message("POST", "/v1/claims", claim), Assignment)

    def claim_probe(self, node: str) -> Probe | None:
        """What the node is to measure, or None."""
        return self._claimed(self._message("POST", "/v1/claims/probes", ProbeClaim(node=node)), Probe)

    def report_probe(self, probe_id: str, report: ProbeReport) -> Probe:
        """What was measured, or why it could not be; the first report counts."""
        path = f"/v1/probes/{quote(probe_id, safe='')}/report"
        return self._parsed(self._message("POST", path, report), Probe)

    def open_attempt(self, job_id: str, request: AttemptRequest) -> Attempt:
        """The first call of every worker; the client's token is the launch token."""
        return self._parsed(self._message("POST", f"{_job_path(job_id)}/attempts", request), Attempt)

    def heartbeat(self, job_id: str, number: int, beat: Heartbeat) -> HeartbeatReply:
        """Alive, and how far; the client's token is the attempt's, here and below."""
        return self._parsed(self._attempt(job_id, number, "heartbeat", beat), HeartbeatReply)

    def send_logs(self, job_id: str, number: int, chunk: LogChunk) -> None:
        """Lines of the worker's log; sending a line again changes nothing."""
        self._send(self._attempt(job_id, number, "logs", chunk))

    def report(self, job_id: str, number: int, report: AttemptReport) -> Job:
        """How the attempt ended; the same report again is answered the same."""
        return self._parsed(self._attempt(job_id, number, "report", report), Job)

    def _claimed(self, request: httpx.Request, kind: type[Reply]) -> Reply | None:
        response = self._send(request)
        return None if response.status_code == 204 else self._read(response.content, kind)

    def _attempt(self, job_id: str, number: int, what: str, message: Message) -> httpx.Request:
        return self._message("POST", f"{_job_path(job_id)}/attempts/{number}/{what}", message)

    def _message(self, method: str, path: str, message: Message) -> httpx.Request:
        headers = {"content-type": "application/json"}
        return self._request(method, path, content=message.model_dump_json(), headers=headers)


def _job_path(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"
