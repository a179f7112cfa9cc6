"""`tightfit frontier`: what every budget buys, as a table, JSON or a picture."""

from __future__ import annotations

import argparse
from pathlib import Path

from planner_service.chain.quantities import format_bytes
from planner_service.cli.picture import frontier_picture, require_picture
from planner_service.cli.progress import progress
from planner_service.cli.request_file import read_request, without
from planner_service.cli.tables import bytes_text, gradient_rows, percent, table
from planner_service.contract import FrontierPoint, FrontierReply, FrontierRequest

_EPILOG = """\
examples:
  tightfit frontier request.json                            from the least budget to full BPTT
  tightfit frontier request.json --at-most-overhead 0.1     the least bytes for 10 % more time
  tightfit frontier request.json --at-most-bytes 1GiB       the least time in 1 GiB
  tightfit frontier request.json --output frontier.svg      a picture (or .png)

REQUEST is what `tightfit plan` takes; its budget and strategy are not used, and it has no tiers.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `frontier` to the commands."""
    parser = subparsers.add_parser(
        "frontier",
        help="what every budget buys",
        description="Plan a model over the whole range of budgets: bytes against makespan, the knee, and "
        "what the next MiB saves.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "request", metavar="REQUEST", help="a file of JSON or YAML; -: JSON on standard input"
    )
    parser.add_argument("--json", action="store_true", help="print the reply as the service gives it")
    parser.add_argument("--points", type=int, metavar="N", help="budgets to plan (25)")
    parser.add_argument(
        "--at-most-overhead", type=float, metavar="RATIO", help="0.1: at most 10 %% slower than full BPTT"
    )
    parser.add_argument("--at-most-bytes", metavar="BYTES", help="512MiB, 2GB, …")
    parser.add_argument("--output", type=Path, metavar="FILE", help="draw the frontier: .svg or .png")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Plan the budgets and print; refusals are raised."""
    from planner_service.planning import Planner  # loads the kernels: only for this command

    require_picture(arguments.output)
    record = without(read_request(arguments.request), "strategy", "memory.device_budget_bytes")
    asked = {
        "points": arguments.points,
        "at_most_overhead_ratio": arguments.at_most_overhead,
        "at_most_bytes": arguments.at_most_bytes,
    }
    record |= {name: value for name, value in asked.items() if value is not None}
    request = FrontierRequest.model_validate(record)
    with progress("planning every budget"):
        reply = Planner().frontier(request)
    if arguments.output is not None:
        frontier_picture(reply, arguments.output)
    print(reply.model_dump_json(indent=2) if arguments.json else frontier_table(reply))
    return 0


_HEADINGS = ("bytes", "", "makespan", "slower by", "the next MiB saves", "segments of", "")


def frontier_table(reply: FrontierReply) -> str:
    """The frontier for people, the knee marked."""
    rows: list[tuple[str, ...]] = [_HEADINGS]
    rows += [(*_cells(point), "knee" if point == reply.knee else "") for point in reply.points]
    head = [
        ("least budget", bytes_text(reply.minimum_budget_bytes)),
        (
            "full BPTT",
            f"{bytes_text(reply.store_all_peak_bytes)}, {reply.store_all_makespan:.6g} {reply.unit}",
        ),
        *gradient_rows(is_exact=reply.exact_gradient),
    ]
    if reply.least_bytes is not None:
        head.append(("within the overhead asked for", _answer(reply.least_bytes, reply.unit)))
    if reply.least_makespan is not None:
        head.append(("within the bytes asked for", _answer(reply.least_makespan, reply.unit)))
    return f"{table(head)}\n\n{table(rows, right_aligned=frozenset(range(6)))}"


def _cells(point: FrontierPoint) -> tuple[str, ...]:
    return (
        str(point.budget_bytes),
        format_bytes(point.budget_bytes),
        f"{point.makespan:.6g}",
        percent(point.overhead_ratio),
        "" if point.saving_per_mebibyte is None else f"{point.saving_per_mebibyte:.3g}",
        "" if point.segment_steps is None else str(point.segment_steps),
    )


def _answer(point: FrontierPoint, unit: str) -> str:
    slower = percent(point.overhead_ratio)
    return f"{bytes_text(point.budget_bytes)}, {point.makespan:.6g} {unit}, {slower} slower than full BPTT"
