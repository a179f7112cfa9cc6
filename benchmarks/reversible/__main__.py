"""Reversible layers against stored states and full BPTT: `python -m benchmarks.reversible --help`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import RESULTS, description
from benchmarks.reversible import attention, exactness, memory, quality, repeat, speed, translation, tuning

Rows = Iterator[dict[str, Any]]
SEEDS = 3

PARTS: dict[str, Callable[[list[dict[str, Any]]], Rows]] = {
    "exactness": lambda done: _rest(exactness.rows(), done),
    "memory": memory.rows,
    "attention": attention.rows,
    "speed": lambda done: _rest(speed.rows(), done),
    "repeat": repeat.rows,
    "tuning-gru": lambda done: tuning.rows("gru", quality.Training(), done),
    "tuning-lstm": lambda done: tuning.rows("lstm", quality.Training(), done),
    "quality-gru": lambda done: _quality("gru", done),
    "quality-lstm": lambda done: _quality("lstm", done),
    "translation": translation.rows,
}


def _rest(rows: Rows, done: list[dict[str, Any]]) -> Rows:
    """All rows, or none when the result file is there: these parts are measured in one go."""
    return iter(()) if done else rows


def _quality(kind: str, done: list[dict[str, Any]]) -> Rows:
    settings = tuning.chosen(_recorded(f"tuning-{kind}"))
    pairs = {(row["model"], row["seed"]) for row in done}
    return quality.rows(kind, quality.TRAININGS[kind], SEEDS, settings, pairs)


def _recorded(part: str) -> list[dict[str, Any]]:
    path = _path(part)
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.exists() else []
    return rows


def _path(part: str) -> Path:
    return RESULTS / f"reversible-{part}.json"


def run(part: str, *, fresh: bool) -> None:
    """Measure a part row by row; rows already in its result file are kept unless `fresh`."""
    done = [] if fresh else _recorded(part)
    for row in PARTS[part](done):
        done.append(row)
        print(json.dumps(row), flush=True)
        record = {
            "command": f"python -m benchmarks.reversible {part}",
            "machine": description("torch"),
            "threads": torch.get_num_threads(),
            "rows": done,
        }
        _path(part).write_text(json.dumps(record, indent=1) + "\n")


def main() -> int:
    """Run the parts named on the command line, or all of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reversible", description=__doc__)
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
