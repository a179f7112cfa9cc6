"""The result file of `make gpu` as a page of the documentation: `python -m benchmarks.gpu.page` writes it
anew, from whatever a run has left that was ended.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.arguments import without_arguments
from benchmarks.gpu import results
from benchmarks.machine import ROOT
from benchmarks.sparse.table import times as sparse_times
from planner_service.chain.quantities import format_bytes

Found = Mapping[str, Any]
PATH = results.place(ROOT / "docs/gpu.md")


def write(path: Path = PATH, source: Path = results.PATH) -> None:
    """Of what is known by now."""
    path.write_text(page(results.load(source)), encoding="utf-8")


def try_to_write() -> bool:
    """The same; whether it could be written. A run goes on without: the page can be made of its results
    later.
    """
    try:
        write()
    except Exception:
        traceback.print_exc()
        return False
    return True


def page(found: Found) -> str:
    """What was measured, where and with which versions; rows that were not measured with their reason."""
    sections = [_about(found), _budgets(found), _reversible(found), _sparse(found), _left_out(found)]
    return "\n\n".join(section for section in sections if section) + "\n"


def _about(found: Found) -> str:
    machine, tests = found["machine"], found.get("tests", {"summary": "not run", "failures": []})
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    device = f"{machine['device']} with {format_bytes(machine['device_bytes'])}"
    lines = [
        "# On a GPU",
        "",
        f"Written by `make gpu` on {machine['date']}, commit {machine['commit']}: {device}, driver "
        f"{machine['driver']}, CUDA {machine['cuda']}, {versions}.",
        "",
        f"Tests marked `gpu`: {tests['summary'].strip(' =')}.",
    ]
    return "\n".join(lines + [f"- {failure}" for failure in tests["failures"]])


def _budgets(found: Found) -> str:
    lines = [
        [row["name"], *_budget_cells(record)]
        for row in found.get("budgets", [])
        for record in row.get("budgets", [])
    ]
    if not lines:
        return ""
    header = ["case", "budget", "peak", "time / full BPTT", "with host memory: peak", "time / full BPTT"]
    text = (
        "## Inside a budget\n\nBudgets are shares of full BPTT's measured peak; peaks are the caching "
        "allocator's. With host memory, checkpoints or whole tapes move there while the device computes, "
        "whichever the probe found quicker. The hard cap is the budget too: the allocator refuses to reserve "
        "more than that on top of what it holds; gaps between blocks that it holds can be used as well. "
        f"{_segments(found)}\n\n"
    )
    return text + _table([*header, "under the hard cap", "time / best checkpoint"], lines)


def _segments(found: Found) -> str:
    """Of which kind they were, row by row: a machine or a user's own settings may refuse that they expand."""
    fixed = [row["name"] for row in found["budgets"] if not row.get("segments_expand", True)]
    return "Segments can expand" + (f", but not in: {', '.join(fixed)}." if fixed else ".")


def _budget_cells(record: Found) -> list[str]:
    budget = f"{100 * record['share']:.2g} % = {format_bytes(record['budget_bytes'])}"
    if "minimum_budget_bytes" in record:
        return [budget, f"refused: needs {format_bytes(record['minimum_budget_bytes'])}", *[""] * 5]
    peak, ratio = _bytes(record, "measured_peak_bytes"), _ratio(record)
    predicted = record.get("predicted_seconds")
    if record.get("is_too_slow"):
        peak = f"not run: {predicted:.3g} s predicted"
    elif ratio and predicted is not None:
        ratio += f" ({record['seconds']:.3g} s, predicted {predicted:.3g} s)"
    host = record.get("with_host", {})
    return [
        budget,
        peak,
        ratio,
        _on_host(host),
        _ratio(host),
        _cap(record.get("hard_cap", {})),
        _rival(record),
    ]


def _on_host(host: Found) -> str:
    if "measured_peak_bytes" not in host:
        return "failed" if "failed" in host else ""
    is_used = host["host_peak_bytes"] > 0
    use = f"({host['strategy']}, {_bytes(host, 'host_peak_bytes')} there)" if is_used else "(not used)"
    return f"{_bytes(host, 'measured_peak_bytes')} {use}"


def _cap(capped: Found) -> str:
    if "reserved_peak_bytes" in capped:
        gaps = f", {_bytes(capped, 'gaps_before_bytes')} in gaps" if capped.get("gaps_before_bytes") else ""
        return f"finished, {_bytes(capped, 'reserved_peak_bytes')} more reserved{gaps}"
    words = {"refused": "refused", "out_of_memory": "out of memory", "failed": "failed"}
    return next((word for key, word in words.items() if key in capped), "")


def _rival(record: Found) -> str:
    if "checkpoint" not in record:
        return ""
    rival = record["checkpoint"]
    if rival is None:
        return "none fits"
    return f"{rival['time_ratio']:.2f} ({rival['segments']} segments, {format_bytes(rival['peak_bytes'])})"


def _reversible(found: Found) -> str:
    rows = found.get("reversible", [])
    updates = [
        [row["name"], row["kernels"], _microseconds(row["seconds"]), _microseconds(row["torch_seconds"])]
        for row in rows
        if "torch_seconds" in row
    ]
    iterations = [
        [
            row["name"],
            f"{1000 * row['seconds']:.1f} ms",
            f"{row['time_ratio']:.2f}",
            f"{row['torch_kernels_ratio']:.2f}",
            _bytes(row, "peak_bytes"),
            _bytes(row, "full_peak_bytes"),
        ]
        for row in rows
        if "time_ratio" in row
    ]
    tables = []
    if iterations:
        header = ["iteration", "time", "time / full BPTT", "with torch kernels", "peak", "peak of full BPTT"]
        tables.append(_table(header, iterations))
    if updates:
        tables.append(_table(["forward and back", "kernels", "time", "time of torch operations"], updates))
    text = "## Reversible layers\n\nn = 3; full BPTT is that of the same cell in floats.\n\n"
    return text + "\n\n".join(tables) if tables else ""


def _sparse(found: Found) -> str:
    rows = found.get("sparse", [])
    products = [
        [
            row["name"],
            _microseconds(row["dense_seconds"]),
            _microseconds(row["gathered_seconds"]),
            _microseconds(row["indexed_seconds"]),
            f"{row['largest_error']:.1e}",
        ]
        for row in rows
        if "largest_error" in row
    ]
    iterations = [each for row in rows for each in row.get("rows", [])]
    tables = [sparse_times(iterations).strip()] if iterations else []
    if products:
        header = ["product", "dense", "gathered copies", "Triton, by the index", "largest error"]
        tables.append(_table(header, products))
    text = (
        "## Sparsified gradients\n\nIterations of a character model, batch 32, 50 steps, and products of the "
        "way back; TensorFloat-32 everywhere, as cuDNN has it by default.\n\n"
    )
    return text + "\n\n".join(tables) if tables else ""


def _left_out(found: Found) -> str:
    reasons = ("not_measured", "stopped", "failed")
    lines = [
        f"- {row['name']}: {row[reason]}"
        for section in ("budgets", "reversible", "sparse")
        for row in found.get(section, [])
        for reason in reasons
        if reason in row
    ]
    return "\n".join(["## Not measured, or not to the end", "", *lines]) if lines else ""


def _bytes(record: Found, name: str) -> str:
    return format_bytes(record[name]) if name in record else ""


def _ratio(record: Found) -> str:
    return f"{record['time_ratio']:.2f}" if "time_ratio" in record else ""


def _microseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e6 * seconds:.1f} us"


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(header)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *lines))


if __name__ == "__main__":
    without_arguments(__doc__)
    write()
