"""Twenty measured jobs of mixed cells: projected over measured peak, from bounds to calibrated."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.arguments import without_arguments
from benchmarks.calibration.jobs import Case, Ran
from benchmarks.calibration.learning import Course, learn
from benchmarks.machine import RESULTS, description
from executor.service.process import planning_service
from planner_service.client import PlannerClient

DEVICE = "cpu"
CASES = (
    Case("gru", "float32", 48, 16, 8, 100),
    Case("lstm", "float32", 32, 16, 8, 120),
    Case("rnn", "float64", 64, 8, 4, 150),
    Case("lstm", "float64", 24, 12, 8, 90),
    Case("gru", "float64", 40, 16, 4, 110),
    Case("rnn", "float32", 96, 32, 8, 100),
    Case("gru", "float32", 96, 32, 4, 80),
    Case("lstm", "float32", 64, 32, 4, 100),
    Case("rnn", "float64", 32, 16, 16, 100),
    Case("lstm", "float64", 48, 24, 4, 120),
    Case("gru", "float64", 80, 32, 8, 70),
    Case("rnn", "float32", 48, 16, 16, 120),
    Case("gru", "float32", 64, 24, 16, 90),
    Case("lstm", "float32", 96, 24, 8, 70),
    Case("rnn", "float64", 96, 32, 8, 80),
    Case("lstm", "float64", 64, 16, 16, 60),
    Case("gru", "float64", 56, 24, 16, 60),
    Case("rnn", "float32", 64, 24, 4, 150),
    Case("lstm", "float32", 48, 16, 16, 100),
    Case("gru", "float32", 32, 8, 8, 150),
)
TARGET_RATIO = 1.01


def main() -> int:
    """Run, print the table, write the result; 1 when the target is missed or a projection fell short."""
    torch.set_num_threads(1)
    with (
        tempfile.TemporaryDirectory() as folder,
        planning_service(Path(folder)) as url,
        PlannerClient(url) as client,
    ):
        courses = learn(client, CASES, DEVICE, print)
    print(table(courses))
    result = {
        "command": "python -m benchmarks.calibration",
        "machine": description("torch", "numpy"),
        "jobs": [_record(course) for course in courses],
        "summary": summary(courses),
    }
    path = RESULTS / "calibration.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {path.relative_to(RESULTS.parent.parent)}")
    return 0 if _is_met(courses) else 1


def summary(courses: Sequence[Course]) -> dict[str, Any]:
    """Extremes of projected over measured."""
    return {
        "first_ratio": courses[0].bounds.ratio,
        "bounds": _extremes([course.bounds for course in courses]),
        "calibrated": _extremes([course.calibrated for course in courses]),
    }


def _extremes(runs: Sequence[Ran]) -> dict[str, Any]:
    ratios = [ran.ratio for ran in runs]
    return {"least": min(ratios), "most": max(ratios), "undershoots": sum(ratio < 1 for ratio in ratios)}


def _is_met(courses: Sequence[Course]) -> bool:
    return all(1 <= course.calibrated.ratio <= TARGET_RATIO for course in courses)


def _record(course: Course) -> dict[str, Any]:
    runs = {"bounds": course.bounds, "calibrated": course.calibrated}
    told = {name: {**asdict(ran), "ratio": ran.ratio} for name, ran in runs.items()}
    return {**course.case._asdict(), "budget_bytes": course.budget_bytes, **told}


def table(courses: Sequence[Course]) -> str:
    """Markdown: one line a job."""
    lines = ["| job | model | bounds | calibrated | measured, bytes |", "|---|---|---|---|---|"]
    for number, course in enumerate(courses, start=1):
        case = course.case
        model = f"{case.cell} {case.dtype}, H {case.hidden_size}, B {case.batch_size}, T {case.length}"
        ratios = f"{course.bounds.ratio:.3f} | {course.calibrated.ratio:.4f}"
        lines.append(f"| {number} | {model} | {ratios} | {course.calibrated.measured_bytes:,} |")
    return "\n".join(lines)


if __name__ == "__main__":
    without_arguments(__doc__)
    sys.exit(main())
