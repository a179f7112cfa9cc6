"""The result file of `make gpu` as a page of the documentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.executor.table import markdown
from benchmarks.sparse.table import times as sparse_times
from planner_service.chain.quantities import format_bytes


def page(found: Mapping[str, Any]) -> str:
    """What was measured, where and with which versions; cases that were not measured with their reason."""
    machine = found["machine"]
    finished = [case for case in found["cases"] if "rows" in case]
    left_out = [case for case in found["cases"] if "rows" not in case]
    lines = [
        "# On a GPU",
        "",
        f"Written by `make gpu` on {machine['date']}, commit {machine['commit']}: {machine['device']} with "
        f"{format_bytes(machine['device_bytes'])}, driver {machine['driver']}, CUDA {machine['cuda']}, "
        f"torch {machine['versions']['torch']}.",
        "",
        f"Tests marked `gpu`: {found['tests']['summary'].strip(' =')}.",
        "",
        markdown({**found, "cases": finished}),
    ]
    if left_out:
        lines += ["", "Not measured:", ""]
        lines += [f"- {case['name']}: {case['not_measured']}" for case in left_out]
    if found.get("sparse"):
        lines += ["", "Iterations of a character model whose gate gradients are sparsified:", ""]
        lines += [sparse_times(found["sparse"])]
    return "\n".join(lines) + "\n"
