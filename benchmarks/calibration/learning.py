"""The course of a calibration: jobs one after the other, each planned with what was known by then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.calibration.jobs import CalibrationJob, Case, Ran
from planner_service.client import PlannerClient


@dataclass(frozen=True)
class Course:
    """One job, planned three times for the same budget."""

    case: Case
    budget_bytes: int
    bounds: Ran
    """By the formulas alone."""
    before_its_probe: Ran
    """With what the jobs before it had measured."""
    calibrated: Ran | None = None
    """With all that was measured in the end."""


def learn(
    client: PlannerClient, cases: Sequence[Case], device_name: str, say: Callable[[str], None]
) -> list[Course]:
    """Run `cases`, report each run and probe to the service, then run them again with what it learnt."""
    jobs = [CalibrationJob(case) for case in cases]
    courses = [_first_time(client, job, device_name, say) for job in jobs]
    return [_again(client, job, course, device_name) for job, course in zip(jobs, courses, strict=True)]


def held_out(client: PlannerClient, cases: Sequence[Case], device_name: str) -> list[Course]:
    """Run cases that nobody has probed, by the formulas and by what their likes have measured."""
    found = []
    for case in cases:
        job = CalibrationJob(case)
        budget_bytes = job.budget_bytes(client)
        bounds = job.run(client, budget_bytes)
        found.append(
            Course(case, budget_bytes, bounds, job.run(client, budget_bytes, device_name=device_name))
        )
    return found


def _first_time(
    client: PlannerClient, job: CalibrationJob, device_name: str, say: Callable[[str], None]
) -> Course:
    budget_bytes = job.budget_bytes(client)
    bounds = job.run(client, budget_bytes)
    known = job.run(client, budget_bytes, device_name=device_name)
    _report(client, job, device_name, [bounds, known])
    client.add_profile(job.profile(device_name))
    say(f"{job.case}: bounds {bounds.ratio:.4f}, with what was known {known.ratio:.4f}")
    return Course(job.case, budget_bytes, bounds, known)


def _again(client: PlannerClient, job: CalibrationJob, course: Course, device_name: str) -> Course:
    ran = job.run(client, course.budget_bytes, device_name=device_name)
    _report(client, job, device_name, [ran])
    return Course(course.case, course.budget_bytes, course.bounds, course.before_its_probe, ran)


def _report(client: PlannerClient, job: CalibrationJob, device_name: str, runs: Sequence[Ran]) -> None:
    name = "calibration " + " ".join(map(str, job.case))
    for ran in runs:
        client.post_measurement(job.measurement(ran, device_name, name))
