"""The course of a calibration: jobs one after the other, then once more with what they have taught."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.calibration.jobs import CalibrationJob, Case, Ran
from planner_service.client import PlannerClient


@dataclass(frozen=True)
class Course:
    """One job, planned twice for the same budget."""

    case: Case
    budget_bytes: int
    bounds: Ran
    """By the formulas alone."""
    calibrated: Ran
    """With all that was measured in the end."""


def learn(
    client: PlannerClient, cases: Sequence[Case], device_name: str, say: Callable[[str], None]
) -> list[Course]:
    """Run `cases`, report each run and probe to the service, then run them again with what it learnt."""
    jobs = [CalibrationJob(case) for case in cases]
    firsts = [_first_time(client, job, device_name, say) for job in jobs]
    return [_again(client, job, *first, device_name) for job, first in zip(jobs, firsts, strict=True)]


def _first_time(
    client: PlannerClient, job: CalibrationJob, device_name: str, say: Callable[[str], None]
) -> tuple[int, Ran]:
    budget_bytes = job.budget_bytes(client)
    ran = job.run(client, budget_bytes)
    _report(client, job, device_name, ran)
    client.add_profile(job.profile(device_name))
    say(f"{' '.join(map(str, job.case))}: projected over measured {ran.ratio:.4f}")
    return budget_bytes, ran


def _again(
    client: PlannerClient, job: CalibrationJob, budget_bytes: int, bounds: Ran, device_name: str
) -> Course:
    ran = job.run(client, budget_bytes, device_name=device_name)
    _report(client, job, device_name, ran)
    return Course(job.case, budget_bytes, bounds, ran)


def _report(client: PlannerClient, job: CalibrationJob, device_name: str, ran: Ran) -> None:
    name = "calibration " + " ".join(map(str, job.case))
    client.post_measurement(job.measurement(ran, device_name, name))
