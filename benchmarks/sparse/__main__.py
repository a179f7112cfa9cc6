"""Sparsified gate gradients against dense training: `python -m benchmarks.sparse --help`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from benchmarks.machine import RESULTS, description
from benchmarks.sparse import claim, frontier, sweep

PARTS: dict[str, Callable[[list[dict[str, Any]]], Iterator[dict[str, Any]]]] = {
    "claim": claim.rows,
    "frontier-time": frontier.time_rows,
    "frontier-loss-1": partial(frontier.loss_rows, 1),
    "frontier-loss-2": partial(frontier.loss_rows, 2),
    "sweep": sweep.rows,
}


def run(part: str, *, fresh: bool) -> None:
    """Measure a part row by row; rows already in its result file are kept unless `fresh`."""
    path = RESULTS / f"sparse-{part}.json"
    done = [] if fresh or not path.exists() else json.loads(path.read_text())["rows"]
    for row in PARTS[part](done):
        done.append(row)
        print(json.dumps(row), flush=True)
        record = {
            "command": f"python -m benchmarks.sparse {part}",
            "machine": description("torch"),
            "threads": torch.get_num_threads(),
            "rows": done,
        }
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    """Run the parts named on the command line, or all of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sparse", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--fresh", action="store_true", help="measure again what the result files hold")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.parts) - set(PARTS)):
        parser.error(f"unknown part {', '.join(unknown)}: choose from {', '.join(PARTS)}")
    torch.set_num_threads(1)
    for part in arguments.parts or PARTS:
        run(part, fresh=arguments.fresh)
    return 0


if __name__ == "__main__":
    sys.exit(main())
