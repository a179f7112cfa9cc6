"""`tightfit simulate`: any schedule or plan, judged action by action."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from planner_service.cli.picture import require_picture, timeline_picture
from planner_service.cli.progress import progress
from planner_service.cli.request_file import UnreadableRequest, read_request, read_text, without
from planner_service.cli.tables import bytes_text, cost_text, percent, table
from planner_service.contract import SimulationReply, SimulationRequest

ILLEGAL = 1

_EPILOG = """\
examples:
  tightfit simulate request.json --plan plan.json              a plan that `tightfit plan --json` printed
  tightfit simulate request.json --schedule schedule.ndjson    anybody's schedule, one action per line
  tightfit simulate simulation.json --output timeline.svg      memory over time, as a picture

REQUEST describes the model as for `tightfit plan`; a budget in it is kept as the limit. Beside --schedule a
recurrent model needs "segment_steps": how many steps one stage of the schedule is. An action:
  {"action": "advance", "first": 1, "last": 17}     run stages 1..17 without a tape, keep the state after 17
  {"action": "tape", "first": 18, "last": 20}       run stages 18..20 with tapes
  {"action": "backward", "first": 20, "last": 18}   reverse them, last first
  {"action": "free", "state": 17}                   drop that state
where stages can be undone also archive (like advance) and undo (like backward);
with memory.tiers in REQUEST also move (an advance that lets its input go), store, fetch and discard:
  {"action": "store", "state": 17, "tier": "host"}

exit status: 0 legal; 1 illegal (the first illegal action is shown); 2 refused.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `simulate` to the commands."""
    parser = subparsers.add_parser(
        "simulate",
        help="judge a schedule: legal or not, its peak and its cost",
        description="Replay a schedule or a plan under the memory model: legal, or the first illegal action "
        "and why; peak, makespan and memory over time.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "request", metavar="REQUEST", help="a file of JSON or YAML; -: JSON on standard input"
    )
    parser.add_argument("--json", action="store_true", help="print the reply as the service gives it")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--plan", metavar="FILE", help="judge the policy of this plan")
    source.add_argument("--schedule", metavar="FILE", help="judge these actions, one JSON object per line")
    parser.add_argument("--output", type=Path, metavar="FILE", help="draw the timeline: .svg or .png")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Judge and print; exit status 1 for an illegal schedule. Refusals are raised."""
    from planner_service.planning import Planner  # loads the kernels: only for this command

    require_picture(arguments.output)
    record = without(read_request(arguments.request), "strategy") | _judged(arguments)
    request = SimulationRequest.model_validate(record)
    with progress("replaying"):
        reply = Planner().simulate(request)
    if arguments.output is not None:
        timeline_picture(reply, arguments.output, budget_bytes=request.memory.device_budget_bytes)
    print(reply.model_dump_json(indent=2) if arguments.json else simulation_table(reply))
    return 0 if reply.legal else ILLEGAL


def _judged(arguments: argparse.Namespace) -> dict[str, Any]:
    """What is to be judged, where it is not in the request itself."""
    if arguments.plan is not None:
        plan = read_request(arguments.plan)
        return {"policy": plan.get("policy"), "segment_steps": plan.get("segment_steps")}
    if arguments.schedule is not None:
        return {"schedule": _actions(arguments.schedule)}
    return {}


def _actions(source: str) -> list[object]:
    actions = []
    for number, line in enumerate(read_text(source).splitlines(), start=1):
        if line.strip():
            try:
                actions.append(json.loads(line))
            except ValueError as error:
                raise UnreadableRequest(source, f"line {number} is not JSON: {error}") from None
    return actions


def simulation_table(reply: SimulationReply) -> str:
    """The judgement for people."""
    makespan = cost_text(reply.makespan, reply.unit)
    if reply.illegal is None:
        verdict = [
            ("verdict", "legal"),
            ("makespan", f"{makespan}, {percent(reply.overhead_ratio)} over full BPTT"),
        ]
    else:
        action = "the end" if reply.illegal.action is None else json.dumps(reply.illegal.action)
        verdict = [
            ("verdict", f"ILLEGAL at action {reply.illegal.index}, {action}: {reply.illegal.reason}"),
            ("makespan", f"{makespan} up to there"),
        ]
    counts = [
        ("peak", bytes_text(reply.peak_bytes)),
        ("actions", str(reply.action_count)),
        ("stages advanced", str(reply.advance_count)),
        ("stages taped", str(reply.tape_count)),
        *([("stages undone", str(reply.undo_count))] if reply.undo_count else []),
        ("stages reversed", str(reply.backward_count)),
    ]
    return table([*verdict, *counts, *_tier_rows(reply)])


def _tier_rows(reply: SimulationReply) -> list[tuple[str, str]]:
    rows = []
    for use in reply.tiers:
        moves = f"{use.write_count} writes, {use.read_count} reads"
        rows.append((f"{use.name} held", f"at most {bytes_text(use.peak_bytes)}; {moves}"))
    if rows:
        rows.append(("waiting", f"{cost_text(reply.stall_seconds, reply.unit)} for transfers"))
    return rows
