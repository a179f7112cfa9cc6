"""`tightfit compare`: all strategies on one model, at equal bytes and at equal time."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from planner_service.cli.plan import overridden
from planner_service.cli.progress import progress
from planner_service.cli.request_file import read_request, without
from planner_service.cli.tables import bytes_text, cost_text, percent, table
from planner_service.contract import ComparedStrategy, ComparisonReply, ComparisonRequest

_EPILOG = """\
example:
  tightfit compare request.json --budget 1GiB

REQUEST is what `tightfit plan` takes; its strategy is not used. INEXACT marks a gradient that is not that
of full BPTT.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `compare` to the commands."""
    parser = subparsers.add_parser(
        "compare",
        help="every strategy at equal bytes and at equal time",
        description="Plan a model with every strategy: the time each takes in the same bytes, and the bytes "
        "each needs for the same time.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "request", metavar="REQUEST", help="a file of JSON or YAML; -: JSON on standard input"
    )
    parser.add_argument("--json", action="store_true", help="print the reply as the service gives it")
    parser.add_argument("--budget", metavar="BYTES", help="override the request's budget: 512MiB, 2GB, …")
    parser.set_defaults(run=run, strategy=None)


def run(arguments: argparse.Namespace) -> int:
    """Compare and print; refusals are raised."""
    from planner_service.planning import Planner  # loads the kernels: only for this command

    record = without(overridden(read_request(arguments.request), arguments), "strategy")
    request = ComparisonRequest.model_validate(record)
    with progress("planning with every strategy"):
        reply = Planner().compare(request)
    print(reply.model_dump_json(indent=2) if arguments.json else comparison_tables(reply))
    return 0


def comparison_tables(reply: ComparisonReply) -> str:
    """The comparison for people: two tables."""
    text = f"in {bytes_text(reply.budget_bytes)}\n{_table(reply.at_equal_bytes)}"
    if reply.reference_makespan is None:
        return f"{text}\n\nauto has no plan in this budget: there is no time to compare at"
    limit = cost_text(reply.reference_makespan, reply.unit)
    return f"{text}\n\nin at most {limit}\n{_table(reply.at_equal_time)}"


_HEADINGS = ("strategy", "makespan", "slower by", "budget", "peak bytes", "segments of", "gradient", "")


def _table(compared: Sequence[ComparedStrategy]) -> str:
    rows: list[tuple[str, ...]] = [_HEADINGS]
    rows += [_cells(row) for row in compared]
    return table(rows, right_aligned=frozenset({1, 2, 3, 4, 5}))


def _cells(row: ComparedStrategy) -> tuple[str, ...]:
    if row.makespan is None or row.overhead_ratio is None:
        return (row.strategy, "-", "-", "-", "-", "-", "-", row.reason)
    return (
        row.strategy,
        f"{row.makespan:.6g}",
        percent(row.overhead_ratio),
        str(row.budget_bytes or "-"),
        str(row.peak_bytes),
        "" if row.segment_steps is None else str(row.segment_steps),
        "exact" if row.exact_gradient else "INEXACT",
        row.reason,
    )
