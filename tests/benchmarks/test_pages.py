"""What pages say of measurements is what the result files hold."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

import pytest

pytest.importorskip("torch")

from benchmarks.machine import RESULTS, ROOT
from benchmarks.planner.table import markdown
from benchmarks.service.table import PAGE, page
from benchmarks.sparse import table as sparse


def result(name):
    """One result file."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def missing(text: str, document: str) -> list[str]:
    """Rows of the tables in `text` that the document lacks, however it pads them."""
    rows = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    return [row for row in rows if row not in (ROOT / document).read_text(encoding="utf-8")]


def calibration_rows():
    """The table of the page on calibration, as its benchmark prints it."""
    for number, job in enumerate(result("calibration")["jobs"], start=1):
        model = (
            f"{job['cell']} {job['dtype']}, H {job['hidden_size']}, B {job['batch_size']}, T {job['length']}"
        )
        ratios = f"{job['bounds']['ratio']:.3f} | {job['calibrated']['ratio']:.4f}"
        yield f"| {number} | {model} | {ratios} | {job['calibrated']['measured_bytes']:,} |"


def breakdown_rows():
    """Where the seconds of an iteration go, on the page of the executor's benchmark."""
    for row in result("executor-breakdown")["rows"]:
        parts = ("advance", "advance again", "tape", "backward", "total")
        seconds = " | ".join(f"{row[part]:.2f}" for part in parts)
        case = f"{row['case']} at {100 * row['share']:.0f} %"
        yield f"| {case} | {row['full']:.2f} | k = {row['segment_steps']} | {seconds} |"


def placement_rows():
    """The two ways to ask for a placement, on its page."""
    found = result("placement")
    for name, way in (("in process", "in_process"), ("over HTTP, a new request each time", "over_http")):
        seconds = found[way]["seconds"]
        yield f"| {name} | {median(seconds):.2f} | {found[way]['best_seconds']:.2f} |"


@pytest.mark.parametrize(
    ("document", "tables"),
    [
        ("benchmarks/planner/README.md", lambda: markdown(result("planner"))),
        ("benchmarks/executor/README.md", lambda: "\n".join(breakdown_rows())),
        ("docs/placement.md", lambda: "\n".join(placement_rows())),
        ("docs/calibration.md", lambda: "\n".join(calibration_rows())),
        (
            "docs/sparse.md",
            lambda: "\n".join(
                [
                    sparse.claim(),
                    sparse.claim("claim-longer"),
                    sparse.sweep(),
                    sparse.frontier(),
                    sparse.longer_losses(),
                ]
            ),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_pages_tables_are_the_result_files(document, tables):
    """Every row that the results give is on the page"""
    assert missing(tables(), document) == []


def test_the_services_page_is_the_one_that_the_results_make():
    assert Path(PAGE).read_text(encoding="utf-8") == page()
