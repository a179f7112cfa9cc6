"""The result file as a Markdown table: `python -m benchmarks.executor.table [executor-2-threads.json]`."""

from __future__ import annotations

import argparse
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
    "time / checkpoint",
    "checkpoint's segments (peak)",
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
    measured, rival_bytes = row["measured_peak_bytes"], row["checkpoint_peak_bytes"]
    rival = f"{row['checkpoint_segments']} ({format_bytes(rival_bytes)})"
    if rival_bytes > measured:
        rival += f", {rival_bytes / measured:.1f} of ours"
    ratios = [f"{row[name]:.2f}" for name in ("time_ratio", "checkpoint_time_ratio")]
    return [budget, format_bytes(measured), *ratios, rival]


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.executor.table", description=__doc__)
    parser.add_argument("file", nargs="?", default="executor.json", help="under benchmarks/results")
    print(markdown(json.loads((RESULTS / parser.parse_args().file).read_text(encoding="utf-8"))))
