"""`tightfit plan`: a request in, a plan as a table or as JSON out."""

from __future__ import annotations

import argparse
from typing import Any

from planner_service.chain.quantities import format_bytes
from planner_service.cli.progress import progress
from planner_service.cli.request_file import read_request
from planner_service.cli.tables import bytes_text, cost_text, percent, table
from planner_service.contract import (
    PlanCost,
    PlanLedgerLine,
    PlanMemory,
    PlanReply,
    PlanRequest,
    TierUseRecord,
)

_EPILOG = """\
a request for a recurrent model:
  {"model": {"kind": "lstm", "input_size": 256, "hidden_size": 1024, "head": {"output_size": 10000}},
   "sequence": {"length": 1000, "batch_size": 64},
   "training": {"optimizer": "adam"},
   "memory": {"device_budget_bytes": "2GiB"}}

kinds are lstm, gru, rnn and, with steps that can be undone, rev_gru, rev_lstm, nf_rev_gru,
nf_rev_lstm; or a chain of your own, costs in any unit, sizes in bytes:
  {"model": {"kind": "chain", "stages": [{"count": 1000, "forward_cost": 1, "taped_forward_cost": 1,
             "backward_cost": 2, "state_bytes": 4096, "tape_bytes": 16384}]},
   "memory": {"device_budget_bytes": "1MiB"}}

stored states may leave the device for tiers, from fast to slow; times are in the unit of the costs, which is
seconds with a measured profile, forward passes of a step without one, and that of a chain's own costs:
  "memory": {"device_budget_bytes": "2GiB", "tiers": [{"name": "host", "budget_bytes": "16GiB",
             "write_seconds_per_byte": 1e-10, "read_seconds_per_byte": 1e-10}]}

exit status: 0 planned; 2 refused, with the problem document on standard error. A budget that is too
small is refused with the least budget that can be planned (minimum_budget_bytes).
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `plan` to the commands."""
    parser = subparsers.add_parser(
        "plan",
        help="the cheapest execution that fits a budget",
        description="Find the execution policy that trains a model exactly inside a byte budget in the "
        "least time, and say what it holds and costs.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "request", metavar="REQUEST", help="a file of JSON or YAML; -: JSON on standard input"
    )
    parser.add_argument("--json", action="store_true", help="print the reply as the service gives it")
    parser.add_argument("--budget", metavar="BYTES", help="override the request's budget: 512MiB, 2GB, …")
    parser.add_argument("--strategy", metavar="NAME", help="override the request's strategy")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Plan and print; refusals are raised."""
    from planner_service.planning import Planner  # loads the kernels: only for this command

    request = PlanRequest.model_validate(overridden(read_request(arguments.request), arguments))
    with progress("planning"):
        reply = Planner().plan(request)
    print(reply.model_dump_json(indent=2) if arguments.json else plan_table(reply))
    return 0


def overridden(request: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """The request with the budget and strategy of the command line, where they are given."""
    changed = dict(request)
    if arguments.budget is not None:
        memory = request.get("memory")
        changed["memory"] = {
            **(memory if isinstance(memory, dict) else {}),
            "device_budget_bytes": arguments.budget,
        }
    if arguments.strategy is not None:
        changed["strategy"] = arguments.strategy
    return changed


def plan_table(reply: PlanReply) -> str:
    """The reply for people: what to run, what it costs, what it holds."""
    gradient = "exact gradient" if reply.exact_gradient else "INEXACT gradient"
    head = [
        ("plan", reply.id),
        ("strategy", f"{reply.strategy}, {gradient}"),
        ("why", reply.reason),
        ("segments", _segments(reply)),
        *_cost_rows(reply.cost),
        *_memory_rows(reply.memory),
    ]
    parts = [table(head), _ledger_table(reply.memory)]
    if reply.memory.tiers:
        parts.append(_tiers_table(reply))
    return "\n\n".join(parts)


def _segments(reply: PlanReply) -> str:
    if reply.segment_steps is None:
        return f"{reply.segment_count} stages as given"
    text = f"{reply.segment_count} of {reply.segment_steps} steps"
    if reply.last_segment_steps != reply.segment_steps:
        text += f", the last of {reply.last_segment_steps}"
    return text


def _cost_rows(cost: PlanCost) -> list[tuple[str, str]]:
    return [
        (
            "makespan",
            f"{cost_text(cost.makespan, cost.unit)}, {percent(cost.overhead_ratio)} over full BPTT "
            f"({cost.store_all_makespan:.6g})",
        ),
        (
            "proof",
            f"{cost.optimality}: nothing in this budget costs less than {cost.lower_bound:.6g} "
            f"(gap {percent(cost.gap_ratio)})",
        ),
        ("work", _work(cost)),
    ]


def _work(cost: PlanCost) -> str:
    text = f"{cost.advance_count} stages advanced without a tape, {cost.tape_count} with one"
    return f"{text}, {cost.undo_count} undone" if cost.undo_count else text


def _memory_rows(memory: PlanMemory) -> list[tuple[str, str]]:
    share = memory.projected_peak_bytes / memory.budget_bytes
    return [
        ("budget", bytes_text(memory.budget_bytes)),
        ("projected peak", f"{bytes_text(memory.projected_peak_bytes)}, {percent(share)} of the budget"),
        ("minimum budget", bytes_text(memory.minimum_budget_bytes)),
        ("full BPTT holds", bytes_text(memory.store_all_peak_bytes)),
    ]


def _ledger_table(memory: PlanMemory) -> str:
    peak_bytes = memory.projected_peak_bytes
    rows: list[tuple[str, ...]] = [("at the peak", "bytes", "", "of it", "known", "how")]
    rows += [_ledger_cells(line, peak_bytes) for line in memory.ledger if line.tier is None]
    rows.append(("sum", str(peak_bytes), format_bytes(peak_bytes), "", "", ""))
    rows += [_ledger_cells(line, 0) for line in memory.ledger if line.tier is not None]
    return table(rows, right_aligned=frozenset({1, 2, 3}))


def _ledger_cells(line: PlanLedgerLine, peak_bytes: int) -> tuple[str, ...]:
    share = percent(line.bytes / peak_bytes) if peak_bytes else ""
    return (line.name, str(line.bytes), format_bytes(line.bytes), share, line.exactness, line.formula)


def _tiers_table(reply: PlanReply) -> str:
    rows: list[tuple[str, ...]] = [("tier", "most held", "of", "writes", "bytes", "reads", "bytes", "busy")]
    rows += [_tier_cells(use) for use in reply.memory.tiers]
    stall = cost_text(reply.cost.stall_seconds, reply.cost.unit)
    waiting = f"the computation waits {stall} for transfers"
    return f"{table(rows, right_aligned=frozenset(range(1, 8)))}\n{waiting}"


def _tier_cells(use: TierUseRecord) -> tuple[str, ...]:
    return (
        use.name,
        str(use.peak_bytes),
        str(use.budget_bytes),
        str(use.write_count),
        str(use.written_bytes),
        str(use.read_count),
        str(use.read_bytes),
        f"{use.write_seconds + use.read_seconds:.6g}",
    )
