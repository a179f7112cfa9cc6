"""One section of `make gpu` in a process of its own: `python -m benchmarks.gpu.section NAME --until T`.

Goes on where another process of the section has ended. Exit status 1 when the device stopped answering.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import torch

from benchmarks.gpu import budgets, page, results, reversible, rows, sparse

SECTIONS = {"budgets": budgets.rows, "reversible": reversible.rows, "sparse": sparse.rows}
_FIRST_BYTES = 2**25


def keep(section: str, row: dict[str, Any]) -> None:
    """Put a row into the result file and onto the page: the run may be ended at any moment."""
    results.add(section, row)
    page.try_to_write()


def main() -> int:
    """Measure the rows of a section, each kept at once."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.section", description=__doc__)
    parser.add_argument("section", choices=SECTIONS)
    parser.add_argument("--until", type=float, required=True, help="of the monotonic clock: no row goes on")
    given = parser.parse_args()
    torch.manual_seed(0)
    torch.empty(_FIRST_BYTES, dtype=torch.uint8, device="cuda")  # no row is begun where this is refused
    begun = results.names(given.section)
    left = [row for row in SECTIONS[given.section]() if row.name not in begun]
    answers = rows.run(left, until=given.until, keep=partial(keep, given.section))
    return 0 if answers else 1


if __name__ == "__main__":
    raise SystemExit(main())
