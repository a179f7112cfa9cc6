"""A typed client of the planning service; schedulers and workers import it. No torch, no server code.

with PlannerClient("http://127.0.0.1:8080") as planner:
    plan = planner.plan({"model": …, "memory": {"device_budget_bytes": "2GiB"}})
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import httpx

from planner_service.chain import TieredAction, tiered_action_from_record
from planner_service.connection import Connection, PlannerError, PlannerRefused, PlannerUnreachable
from planner_service.contract import (
    ComparisonReply,
    ComparisonRequest,
    FrontierReply,
    FrontierRequest,
    PlacementReply,
    PlacementRequest,
    PlanReply,
    PlanRequest,
    ProfileRecord,
    SimulationReply,
    SimulationRequest,
)
from planner_service.contract.attempts import AttemptList, AttemptRecord
from planner_service.contract.audit import AuditPage
from planner_service.contract.job_events import JobEvent, JobLogPage
from planner_service.contract.jobs import Job, JobPage, JobRequest, JobState
from planner_service.contract.measurements import Measurement, MeasurementPage, MeasurementReport
from planner_service.contract.nodes import Node, NodePage
from planner_service.contract.probes import Probe, ProbePage, ProbeRequest
from planner_service.contract.stored_profiles import ProfilePage, StoredProfile

__all__ = ["PlannerClient", "PlannerError", "PlannerRefused", "PlannerUnreachable"]

_EVENTS_SILENCE_SECONDS = 45.0
"""A stream in which nothing happens has a comment every 15 seconds: three that do not come are no silence."""
_EVENTS_RETRY_SECONDS = 2.0
"""After a stream that ended without an event and not for good: as `retry` of the stream says."""


class PlannerClient(Connection):
    """Talks to one planning service. Every method raises PlannerUnreachable and PlannerRefused."""

    def plan(self, request: PlanRequest | Mapping[str, Any]) -> PlanReply:
        """The cheapest plan within the request's budget."""
        return self._post("/v1/plans", request, PlanReply)

    def get_plan(self, plan_id: str) -> PlanReply:
        """A plan that was made before."""
        return self._get(_plan_path(plan_id), PlanReply)

    def schedule(self, plan_id: str) -> Iterator[TieredAction]:
        """The plan's actions, one at a time, as the service expands them."""
        for record in self.schedule_records(plan_id):
            yield tiered_action_from_record(record)

    def schedule_records(self, plan_id: str) -> Iterator[dict[str, Any]]:
        """The plan's actions as they go over the wire."""
        request = self._request("GET", f"{_plan_path(plan_id)}/schedule")
        for line in self._lines(self._send(request, stream=True)):
            try:
                record = json.loads(line)
            except ValueError as error:
                raise PlannerUnreachable(self.url, "its answer is no schedule") from error
            yield record

    def frontier(self, request: FrontierRequest | Mapping[str, Any]) -> FrontierReply:
        """What each budget buys, from the least one to that of full BPTT."""
        return self._post("/v1/frontiers", request, FrontierReply)

    def compare(self, request: ComparisonRequest | Mapping[str, Any]) -> ComparisonReply:
        """Every strategy, at equal bytes and at equal time."""
        return self._post("/v1/comparisons", request, ComparisonReply)

    def place(self, request: PlacementRequest | Mapping[str, Any]) -> PlacementReply:
        """Where jobs fit, hole by hole, and what to tell each scheduler."""
        return self._post("/v1/placements", request, PlacementReply)

    def simulate(self, request: SimulationRequest | Mapping[str, Any]) -> SimulationReply:
        """The simulator's judgement of any schedule or policy."""
        return self._post("/v1/simulations", request, SimulationReply)

    def post_measurement(self, report: MeasurementReport | Mapping[str, Any]) -> Measurement:
        """Report a training run; sending the same report again changes nothing."""
        return self._post("/v1/measurements", report, Measurement)

    def measurements(
        self,
        *,
        limit: int = 50,
        cursor: str | None = None,
        job: str | None = None,
        plan_id: str | None = None,
    ) -> MeasurementPage:
        """Some measurements, the latest first; `next_cursor` leads to those before."""
        query = _given(limit=limit, cursor=cursor, job=job, plan_id=plan_id)
        return self._get("/v1/measurements", MeasurementPage, query)

    def forget_measurement(self, measurement_id: str) -> None:
        """Delete a measurement that is wrong, and what it taught; needs a key with the scope `admin`."""
        self._send(self._request("DELETE", f"/v1/measurements/{quote(measurement_id, safe='')}"))

    def add_profile(self, profile: ProfileRecord | Mapping[str, Any]) -> StoredProfile:
        """Keep what a probe measured; sending the same profile again changes nothing."""
        return self._post("/v1/profiles", profile, StoredProfile)

    def profile(self, profile_id: str) -> StoredProfile:
        """A kept profile, with what runs have taught about it."""
        return self._get(f"/v1/profiles/{quote(profile_id, safe='')}", StoredProfile)

    def forget_profile(self, profile_id: str) -> None:
        """Delete a profile that is wrong: no plan uses it any more; needs a key with the scope `admin`."""
        self._send(self._request("DELETE", f"/v1/profiles/{quote(profile_id, safe='')}"))

    def profiles(
        self,
        *,
        limit: int = 50,
        cursor: str | None = None,
        device_name: str | None = None,
        cell: str | None = None,
    ) -> ProfilePage:
        """Some profiles, the latest first; `next_cursor` leads to those before."""
        query = _given(limit=limit, cursor=cursor, device_name=device_name, cell=cell)
        return self._get("/v1/profiles", ProfilePage, query)

    def submit_job(
        self, request: JobRequest | Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> Job:
        """Queue a training run. Without a key one is made up, so that a message sent twice makes one job."""
        key = idempotency_key or secrets.token_hex(16)
        return self._post("/v1/jobs", request, Job, headers={"idempotency-key": key})

    def job(self, job_id: str) -> Job:
        """A job as it stands."""
        return self._get(_job_path(job_id), Job)

    def jobs(self, *, state: JobState | None = None, limit: int = 50, cursor: str | None = None) -> JobPage:
        """Some jobs, the latest first; `next_cursor` leads to those before."""
        return self._get("/v1/jobs", JobPage, _given(state=state, limit=limit, cursor=cursor))

    def cancel_job(self, job_id: str) -> Job:
        """Stop a job: at once while it waits, else at its worker's next heartbeat."""
        return self._parsed(self._request("POST", f"{_job_path(job_id)}/cancel"), Job)

    def attempts(self, job_id: str) -> list[AttemptRecord]:
        """Every attempt at a job, the first one first."""
        return self._get(f"{_job_path(job_id)}/attempts", AttemptList).attempts

    def job_logs(
        self, job_id: str, *, attempt: int | None = None, limit: int = 1000, cursor: str | None = None
    ) -> JobLogPage:
        """Some lines that a job's workers wrote, the oldest first."""
        query = _given(attempt=attempt, limit=limit, cursor=cursor)
        return self._get(f"{_job_path(job_id)}/logs", JobLogPage, query)

    def job_events(self, job_id: str, *, after: int = 0) -> Iterator[JobEvent]:
        """What happens to a job, from its event `after` on, until it is over.

        A stream that a stopping service has ended is asked for again. Raises PlannerUnreachable when the
        connection breaks; go on from the last event's number.
        """
        seen = after
        # A job may say nothing for longer than any other call may take.
        timeout = self._http.timeout.as_dict()
        if (limit := timeout["read"]) is not None:
            timeout["read"] = max(limit, _EVENTS_SILENCE_SECONDS)
        while True:
            before = seen
            headers = {"last-event-id": str(seen)}
            request = self._request(
                "GET", f"{_job_path(job_id)}/events", headers=headers, timeout=httpx.Timeout(**timeout)
            )
            response = self._send(request, stream=True)
            if response.status_code == httpx.codes.NO_CONTENT:  # the job is over, and that was all
                response.close()
                return
            for event in self._events(response):
                seen = event.number
                yield event
            if seen == before:
                time.sleep(_EVENTS_RETRY_SECONDS)

    def _events(self, response: httpx.Response) -> Iterator[JobEvent]:
        media_type = response.headers.get("content-type", "")
        if not media_type.startswith("text/event-stream"):
            response.close()
            raise PlannerUnreachable(self.url, f"its events come in {media_type or 'no type'}")
        for line in self._lines(response):
            if line.startswith(b"data: "):
                yield self._read(line.removeprefix(b"data: "), JobEvent)

    def nodes(self, *, limit: int = 100, cursor: str | None = None) -> NodePage:
        """Some nodes by name; `next_cursor` leads to those after."""
        return self._get("/v1/nodes", NodePage, _given(limit=limit, cursor=cursor))

    def node(self, name: str) -> Node:
        """One node."""
        return self._get(f"/v1/nodes/{quote(name, safe='')}", Node)

    def request_probe(self, request: ProbeRequest | Mapping[str, Any]) -> Probe:
        """Have a node measure a model; `probe` tells what has become of it."""
        return self._post("/v1/probes", request, Probe)

    def probe(self, probe_id: str) -> Probe:
        """A probe as it stands."""
        return self._get(f"/v1/probes/{quote(probe_id, safe='')}", Probe)

    def probes(self, *, limit: int = 50, cursor: str | None = None, node: str | None = None) -> ProbePage:
        """Some probes, the latest first; `next_cursor` leads to those before."""
        return self._get("/v1/probes", ProbePage, _given(limit=limit, cursor=cursor, node=node))

    def audit(
        self,
        *,
        limit: int = 100,
        cursor: str | None = None,
        caller: str | None = None,
        action: str | None = None,
    ) -> AuditPage:
        """Who did what, the latest first; needs a key with the scope `admin`."""
        query = _given(limit=limit, cursor=cursor, caller=caller, action=action)
        return self._get("/v1/audit", AuditPage, query)

    def health(self) -> dict[str, Any]:
        """What the service says of itself."""
        return self._object(self._send(self._request("GET", "/healthz")))

    def is_ready(self) -> bool:
        """Whether plans are answered at full speed and kept."""
        try:
            self._send(self._request("GET", "/readyz"))
        except PlannerRefused as refused:
            if refused.status == 503:
                return False
            raise
        return True


def _plan_path(plan_id: str) -> str:
    return f"/v1/plans/{quote(plan_id, safe='')}"


def _job_path(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"


def _given(**query: object) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}
