"""Measure the planner against its peers: `python -m benchmarks.planner --peers DIRECTORY`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.machine import RESULTS, description
from benchmarks.planner.peers import Missing, measure, run
from benchmarks.planner.rows import ROWS, Row
from benchmarks.planner.table import markdown


def measured(row: Row, peers: Path | None, kernel_cache: str) -> dict[str, Any]:
    """Ours and every peer of one row, ratios included."""
    ours = _ours(row, kernel_cache)
    found: dict[str, Any] = {"name": row.name, "ours": ours, "peers": []}
    for against in row.against:
        try:
            theirs = measure(against.peer, peers, against.rounds, against.arguments)
        except Missing as reason:
            found["peers"].append({"label": against.peer.label, "skipped": str(reason)})
            continue
        theirs["cpu_median_seconds"] = median(theirs["cpu_seconds"])
        ratio = theirs["cpu_median_seconds"] / ours["cpu_median_seconds"]
        found["peers"].append({"label": against.peer.label, "cpu_ratio": ratio, **theirs})
    found["missed"] = missed(row, found)
    return found


def _ours(row: Row, kernel_cache: str) -> dict[str, Any]:
    environment = {"NUMBA_CACHE_DIR": kernel_cache} if row.cold else {}
    found = run([sys.executable, "-m", "benchmarks.planner.our_process", *row.call], environment)
    found["cpu_median_seconds"] = median(found["cpu_seconds"])
    if found.get("lower_bound"):
        found["gap_ratio"] = found["cost"] / found["lower_bound"] - 1
    return found


def missed(row: Row, found: dict[str, Any]) -> list[str]:
    """Every target of the row that the measurement did not reach, in words."""
    ours = found["ours"]
    peers = {peer["label"]: peer for peer in found["peers"] if "skipped" not in peer}
    misses = []
    if row.most_seconds is not None and ours["cpu_median_seconds"] > row.most_seconds:
        misses.append(f"{ours['cpu_median_seconds']:.3g} s > {row.most_seconds:g} s")
    if row.most_gap_ratio is not None and ours["gap_ratio"] > row.most_gap_ratio:
        misses.append(f"gap {ours['gap_ratio']:.2%} > {row.most_gap_ratio:.2%}")
    if row.most_rss_bytes is not None and ours["peak_rss_bytes"] > row.most_rss_bytes:
        misses.append(f"{ours['peak_rss_bytes'] / 2**20:.0f} MiB > {row.most_rss_bytes / 2**20:.0f} MiB")
    for against in row.against:
        if (peer := peers.get(against.peer.label)) is None:
            continue
        if against.least_ratio is not None and peer["cpu_ratio"] < against.least_ratio:
            misses.append(f"{peer['cpu_ratio']:.1f}x < {against.least_ratio:g}x {against.peer.label}")
        if "cost" in ours and ours["cost"] > peer["cost"] * (1 + 1e-9):
            misses.append(f"cost {ours['cost']} > {peer['cost']} of {against.peer.label}")
        if row.most_rss_ratio and ours["peak_rss_bytes"] > row.most_rss_ratio * peer["peak_rss_bytes"]:
            misses.append(f"memory > {row.most_rss_ratio:g} of {against.peer.label}")
    return misses


def main() -> int:
    """Measure the chosen rows, print the table, write the result file. Status 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planner", description=__doc__)
    parser.add_argument(
        "--peers",
        type=Path,
        default=os.environ.get("TIGHTFIT_PEERS"),
        help="directory made by peers.sh (default: $TIGHTFIT_PEERS); without it peers are skipped",
    )
    parser.add_argument("--only", default="", help="rows whose name contains this text")
    parser.add_argument("--output", type=Path, default=RESULTS / "planner.json", help="result file")
    arguments = parser.parse_args()
    peers = Path(arguments.peers).resolve() if arguments.peers else None
    results: list[dict[str, Any]] = []
    document = {
        "command": "python -m benchmarks.planner --peers DIRECTORY",
        "machine": description("numba", "numpy"),
        "rows": results,
    }
    with tempfile.TemporaryDirectory() as kernel_cache:
        for row in (row for row in ROWS if arguments.only in row.name):
            print(f"… {row.name}", file=sys.stderr, flush=True)
            results.append(measured(row, peers, kernel_cache))
            if not arguments.only:  # after every row: a run that is stopped keeps what it has
                arguments.output.parent.mkdir(parents=True, exist_ok=True)
                arguments.output.write_text(json.dumps(document, indent=1) + "\n")
    print(markdown(document))
    return 1 if any(result["missed"] for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
