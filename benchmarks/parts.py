"""A benchmark in parts, measured row by row: a part that was interrupted goes on where it stopped."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import RESULTS, description

Row = dict[str, Any]
Rows = Iterator[Row]
Part = Callable[[list[Row]], Rows]
"""Measures the rows that are not among those given."""


@dataclass(frozen=True)
class Parts:
    """The parts of `python -m benchmarks.NAME`, each with a result file of its own."""

    name: str
    of: Mapping[str, Part]
    folder: Path = RESULTS

    def main(self, text: str | None, arguments: Sequence[str] | None = None) -> int:
        """Run the parts named on the command line, or all of them, with one thread."""
        parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{self.name}", description=text)
        names = ", ".join(self.of)
        parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {names} (default: all)")
        parser.add_argument("--fresh", action="store_true", help="measure again what the result files hold")
        given = parser.parse_args(arguments)
        if unknown := sorted(set(given.parts) - set(self.of)):
            parser.error(f"unknown part {', '.join(unknown)}: choose from {names}")
        torch.set_num_threads(1)
        for part in given.parts or self.of:
            self.run(part, fresh=given.fresh)
        return 0

    def run(self, part: str, *, fresh: bool) -> None:
        """Measure a part row by row; rows already in its result file are kept unless `fresh`."""
        done = [] if fresh else recorded(self.path(part))
        for row in self.of[part](done):
            done.append(row)
            record = {
                "command": f"python -m benchmarks.{self.name} {part}",
                "machine": description("torch"),
                "threads": torch.get_num_threads(),
                "rows": done,
            }
            self.path(part).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            print(json.dumps(row), flush=True)

    def path(self, part: str) -> Path:
        """The result file of a part."""
        return self.folder / f"{self.name}-{part}.json"


def recorded(path: Path) -> list[Row]:
    """The rows of a result file; none where there is no file."""
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    return rows
