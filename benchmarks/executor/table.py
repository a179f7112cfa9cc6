"""The result file as a Markdown table: `python -m benchmarks.executor.table`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from benchmarks.machine import RESULTS
from planner_service.chain.quantities import format_bytes

HEADER = (
    "case",
    "budget",
    "measured peak",
    "time / full BPTT",
    "time / best checkpoint",
    "of segments (peak)",
)


def markdown(found: Mapping[str, Any]) -> str:
    """One line per case and budget."""
    lines = [_line(HEADER), _line(["---"] * len(HEADER))]
    for case in found["cases"]:
        lines += [_line([case["name"], *_cells(row)]) for row in case["rows"]]
    return "\n".join(lines)


def _cells(row: Mapping[str, Any]) -> list[str]:
    budget = f"{100 * row['share']:.2g} % = {format_bytes(row['budget_bytes'])}"
    if row.get("predicted_seconds"):
        return [budget, f"not run: {row['predicted_seconds']:.0f} s predicted", "", "", ""]
    if row["measured_peak_bytes"] is None:
        return [budget, f"refused: needs {format_bytes(row['minimum_budget_bytes'])}", "", "", ""]
    measured = format_bytes(row["measured_peak_bytes"])
    if row["checkpoint_segments"] is None:
        return [budget, measured, f"{row['time_ratio']:.2f}", "none fits", ""]
    rival = f"{row['checkpoint_segments']} ({format_bytes(row['checkpoint_peak_bytes'])})"
    return [budget, measured, f"{row['time_ratio']:.2f}", f"{row['checkpoint_time_ratio']:.2f}", rival]


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(markdown(json.loads((RESULTS / "executor.json").read_text(encoding="utf-8"))))
