"""`tightfit probe`: have a node measure a job's model before anybody trains it."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from planner_service.cli.job_watch import AWAY_SECONDS, LATER
from planner_service.cli.remote import add_planner_option, asking
from planner_service.cli.request_file import UnreadableRequest, read_document
from planner_service.contract.probes import Probe

if TYPE_CHECKING:
    from planner_service.client import PlannerClient

SECTIONS = ("model", "data", "sequence", "training", "budget")
"""Of a job file; the others are about running it."""
POLL_SECONDS = 0.5
FAILED = 1
"""Exit status where the node could not measure it."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "probe",
        help="have a node measure a job's model",
        description="Have a node's agent measure the bytes and seconds of a job's model before "
        "anybody trains it there. Exit status 1 where it cannot be measured.",
    )
    parser.add_argument("node", metavar="NODE", help="the node's name, as `tightfit nodes` shows it")
    parser.add_argument(
        "file", metavar="JOB", help="a worker's job file (YAML or JSON), or - for JSON on standard input"
    )
    parser.add_argument("--wait", action="store_true", help="until the node has measured it")
    add_planner_option(parser)
    parser.add_argument("--json", action="store_true", help="print the service's answer as it is")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask, and wait if told to."""
    record = read_document(args.file)
    if not isinstance(record, dict):
        raise UnreadableRequest(args.file, "a job is a mapping of fields: model, sequence, training, budget")
    request = {name: record[name] for name in SECTIONS if name in record}
    with asking(args.planner) as client:
        probe = client.request_probe({"node": args.node, **request})
        if args.wait:
            probe = ended(client, probe)
    print(probe.model_dump_json(indent=2) if args.json else _told(probe))
    return FAILED if probe.state == "failed" else 0


def ended(client: PlannerClient, probe: Probe) -> Probe:
    """The probe once it is over, also past restarts of the service: the node goes on measuring meanwhile.

    Raises PlannerRefused, and PlannerUnreachable when nobody has answered for AWAY_SECONDS.
    """
    from planner_service.client import PlannerRefused, PlannerUnreachable

    answered_at = time.monotonic()
    while probe.state in ("queued", "running"):
        time.sleep(POLL_SECONDS)
        try:
            probe = client.probe(probe.id)
            answered_at = time.monotonic()
        except (PlannerUnreachable, PlannerRefused) as error:
            is_for_good = isinstance(error, PlannerRefused) and error.status not in LATER
            if is_for_good or time.monotonic() - answered_at > AWAY_SECONDS:
                raise
    return probe


def _told(probe: Probe) -> str:
    if probe.state == "succeeded":
        return f"profile {probe.profile_id}"
    return f"probe {probe.id}: {probe.state}" + (f": {probe.detail}" if probe.detail else "")
