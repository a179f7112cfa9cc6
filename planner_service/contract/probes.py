"""Probes on the wire: what a node is asked to measure, and what its agent found (v1).

A request has the sections of a job; nothing is trained. What is found is an ordinary profile: plans that
name the node's device use it from then on.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self

from pydantic import Field, model_validator

from planner_service.contract.attempts import Detail
from planner_service.contract.base import Answer, Message, invalid
from planner_service.contract.budget import JobBudget
from planner_service.contract.jobs import JobData, JobModel, JobSequence, JobTraining
from planner_service.contract.profile import ProfileRecord
from planner_service.contract.texts import Name

ProbeState = Literal["queued", "running", "succeeded", "failed"]
"""The last two are final."""


class ProbeRequest(Message):
    """POST /v1/probes: measure this model on that node, before anybody trains it."""

    node: Name
    model: JobModel
    data: JobData = JobData()
    sequence: JobSequence
    training: JobTraining = JobTraining(iterations=1)
    """Only what changes memory is looked at: the optimizer, and whether gradients are sparsified."""
    budget: JobBudget = "free"
    """The longest segments are measured whose rehearsal fits."""


class Probe(Answer):
    """A probe as it stands."""

    id: str
    node: str
    request: ProbeRequest
    state: ProbeState
    handovers: int
    """How often the node's agent was given it: once, unless the agent was lost meanwhile."""
    profile_id: str | None = None
    """What was measured: GET /v1/profiles/{profile_id}."""
    detail: str | None = None
    """Why it failed."""
    created_at: datetime
    updated_at: datetime


class ProbePage(Answer):
    """Some probes, the latest first."""

    probes: list[Probe]
    next_cursor: str | None = None
    """Pass it as `cursor` for the probes before these."""


class ProbeClaim(Message):
    """POST /v1/claims/probes: the agent of a node asks whether it is to measure something."""

    node: Name


class ProbeReport(Message):
    """POST /v1/probes/{id}/report: what was measured, or why it could not be. The first one counts."""

    profile: ProfileRecord | None = None
    detail: Detail | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if (self.profile is None) == (self.detail is None):
            raise invalid("detail", "a report has a profile, or says in `detail` why there is none")
        return self
