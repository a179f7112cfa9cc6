"""What an attempt is to do, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from executor.jobs.job import Job, job_from_record

JOB_SECTIONS = ("model", "data", "sequence", "training")

TrainerOutcome = Literal["succeeded", "oom", "error", "preempted"]
"""preempted: it was asked to stop; the supervisor knows whether that was a cancellation."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One attempt, in the executor's words."""

    job: Job
    """With the effective budget."""
    job_id: str
    name: str
    number: int
    work_dir: Path
    """Folder of this job's weights files and logs."""
    planner_url: str
    planner_token: str | None = field(default=None, repr=False)
    strategy: str = "auto"
    maximum_slowdown_ratio: float | None = None
    memory_bytes: int | None = None
    """Most bytes of the device that this attempt may take; None: what is free."""
    save_seconds: float = 60.0
    """Between two weights files."""

    @property
    def log(self) -> Path:
        """What the trainer printed."""
        return self.work_dir / f"attempt-{self.number:06d}.log"

    @property
    def report(self) -> Path:
        """What the attempt reported, or meant to."""
        return self.work_dir / f"attempt-{self.number:06d}.report.json"


@dataclass(frozen=True, kw_only=True)
class Result:
    """How the trainer ended."""

    outcome: TrainerOutcome
    detail: str | None = None
    iteration: int = 0
    """Iterations done, those of earlier attempts included."""
    loss: float | None = None
    measurement: dict[str, Any] | None = None
    budget_bytes: int | None = None
    """What the budget came to."""
    excess_bytes: int | None = None
    minimum_budget_bytes: int | None = None
    """The least budget that would do, when there is no plan within this one."""
    is_permanent: bool = False
    """An error that every other attempt would end in, too."""

    def record(self) -> dict[str, Any]:
        """The result as fields of the report; nothing for what is not known."""
        return {name: value for name, value in vars(self).items() if value is not None}


def job_of(request: Mapping[str, Any], budget: int | str) -> Job:
    """The executor's job for a job request of the wire and its effective budget.

    The data's path is the worker's to judge. Raises InvalidJob.
    """
    sections = {name: _given(request[name]) for name in JOB_SECTIONS if request.get(name) is not None}
    return job_from_record({**sections, "budget": budget, "host_budget": request.get("host_budget")})


def _given(section: Mapping[str, Any]) -> dict[str, Any]:
    """Without nulls: they mean the default, which the executor's own job file leaves out."""
    return {name: value for name, value in section.items() if value is not None}
