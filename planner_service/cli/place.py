"""`tightfit place`: where jobs fit in a cluster, as a table or as JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from planner_service.chain.quantities import format_bytes
from planner_service.cli.progress import progress
from planner_service.cli.request_file import UnreadableRequest, read_document
from planner_service.cli.tables import bytes_text, gradient_rows, percent, table
from planner_service.contract import PlacementReply, PlacementRequest
from planner_service.contract.placement import JobPlacement, PlacementOffer, SchedulerWordsRecord

PLACED_FIELDS = (
    "name",
    "model",
    "sequence",
    "training",
    "profile",
    "devices",
    "iterations",
    "forward_seconds",
    "maximum_slowdown_ratio",
)
"""What of a request for a plan matters to its place."""

_EPILOG = """\
examples:
  tightfit place request.json --holes cluster.json           a request as for `tightfit plan`, or a job file
  tightfit place a.json b.json --holes cluster.json --json   several at once, for programs
  tightfit place placement.json                              a whole request, as for POST /v1/placements
  tightfit place job.yaml --holes cluster.json --planner http://head:8080

cluster.json is a list of holes, in JSON or YAML:
  [{"name": "g1/0", "node": "g1", "device": "a100", "memory_total_bytes": "80GiB", "count": 4},
   {"name": "g2/mig", "device": "a100", "mig_slice": "1g.10gb", "memory_total_bytes": "9728MiB"},
   {"name": "g3/half", "device": "t4", "fraction": 0.5, "memory_total_bytes": "15GiB", "hourly_cost": 0.3}]

exit status: 0 every job fits somewhere; 1 some job fits nowhere; 2 refused, with the problem document.
"""

FITS_NOWHERE = 1


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `place` to the commands."""
    parser = subparsers.add_parser(
        "place",
        help="where a job fits in a cluster, and what to tell its scheduler",
        description="Hold jobs against the holes of a cluster: what fits where, how much slower it is there, "
        "what is missing, and the words for Slurm, Kubernetes and Ray. Needs neither a GPU nor PyTorch.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("requests", nargs="+", metavar="REQUEST", help="JSON or YAML files, or -")
    parser.add_argument("--holes", metavar="FILE", help="the holes of the cluster")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="kind of device (cuda)")
    parser.add_argument(
        "--maximum-slowdown", type=float, metavar="RATIO", help="1.5: at most half as long again"
    )
    parser.add_argument("--rank-by", choices=("duration", "cost"), help="what is best (duration)")
    parser.add_argument("--offers", type=int, metavar="N", help="holes shown per job (all)")
    parser.add_argument("--planner", metavar="URL", help="ask a service, which keeps the plans")
    parser.add_argument("--json", action="store_true", help="print the reply as the service gives it")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Place and print; refusals are raised."""
    request = PlacementRequest.model_validate(placement_request(arguments))
    with progress("placing"):
        reply = _ask(request, arguments.planner)
    print(reply.model_dump_json(indent=2) if arguments.json else placement_text(reply))
    return 0 if all(job.fitting_count for job in reply.jobs) else FITS_NOWHERE


def _ask(request: PlacementRequest, url: str | None) -> PlacementReply:
    if url is None:
        from planner_service.planning import Planner  # loads the kernels: only for this command

        return Planner().place(request)
    from planner_service.cli.remote import asking

    with asking(url) as planner:
        return planner.place(request)


def placement_request(arguments: argparse.Namespace) -> dict[str, Any]:
    """The request that the command line describes."""
    documents = [read_document(source) for source in arguments.requests]
    request: dict[str, Any]
    if len(documents) == 1 and isinstance(documents[0], dict) and "jobs" in documents[0]:
        request = dict(documents[0])
    else:
        pairs = zip(arguments.requests, documents, strict=True)
        request = {"jobs": [_job(source, document) for source, document in pairs]}
    if arguments.holes is not None:
        request["holes"] = _holes(arguments.holes)
    given = {"device": arguments.device, "maximum_slowdown_ratio": arguments.maximum_slowdown}
    changes = {name: value for name, value in given.items() if value is not None}
    request["jobs"] = [{**job, **changes} if isinstance(job, dict) else job for job in request["jobs"]]
    asked = {"rank_by": arguments.rank_by, "most_offers": arguments.offers}
    return request | {name: value for name, value in asked.items() if value is not None}


def _job(source: str, document: object) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise UnreadableRequest(source, "a request or a job file is an object with a model")
    return job_of_document(source, document)


def job_of_document(source: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """A request for a plan, or a job file, as a job to be placed; named after its file."""
    if "budget" in document:
        return {"name": document.get("name", source), "job": document}
    return {"name": source} | {name: document[name] for name in PLACED_FIELDS if name in document}


def _holes(source: str) -> object:
    document = read_document(source)
    return document.get("holes", document) if isinstance(document, dict) else document


_HEADINGS = ("", "hole", "node", "fits", "slower by", "seconds", "cost", "request", "limit", "plan")


def placement_text(reply: PlacementReply) -> str:
    """The reply for people: a table of holes per job, and the words for schedulers."""
    return "\n\n".join(_job_text(job, reply.hole_count) for job in reply.jobs)


def _job_text(job: JobPlacement, hole_count: int) -> str:
    head = [
        ("job", job.name),
        ("fits in", f"{job.fitting_count} of {hole_count} holes"),
        ("least budget", bytes_text(job.minimum_budget_bytes)),
        ("full BPTT holds", bytes_text(job.store_all_peak_bytes)),
        *gradient_rows(is_exact=job.exact_gradient),
    ]
    rows: list[tuple[str, ...]] = [_HEADINGS]
    rows += [_cells(rank, offer) for rank, offer in enumerate(job.offers, start=1)]
    parts = [table(head), table(rows, right_aligned=frozenset({0, 4, 5, 6, 7, 8}))]
    if job.words is not None:
        parts.append(table(_words_rows(job.words)))
    return "\n\n".join(parts)


def _cells(rank: int, offer: PlacementOffer) -> tuple[str, ...]:
    if not offer.fits:
        lacks = {
            "memory": f"no: {format_bytes(offer.missing_bytes)} missing",
            "slowdown": f"too slow: {format_bytes(offer.missing_bytes)} missing",
            "device": "no: another kind of device",
            "count": "no: too few devices",
        }
        return (str(rank), offer.hole, offer.node, lacks[offer.reason or "memory"], "", "", "", "", "", "")
    return (
        str(rank),
        offer.hole,
        offer.node,
        "yes",
        _slowdown(offer),
        "" if offer.seconds is None else f"{offer.seconds:.6g}",
        "" if offer.cost is None else f"{offer.cost:.4g}",
        format_bytes(offer.request_bytes or 0),
        format_bytes(offer.limit_bytes or 0),
        offer.plan_id or "",
    )


def _slowdown(offer: PlacementOffer) -> str:
    ratio = offer.slowdown_ratio or 1.0
    known = offer.planned or ratio == 1
    return f"{'' if known else 'at most '}{percent(ratio - 1)}"


def _words_rows(words: SchedulerWordsRecord) -> list[tuple[str, str]]:
    rows = [("on every acceptable type", f"budget {bytes_text(words.budget_bytes)}, plan {words.plan_id}")]
    rows += [("Slurm", " ".join(arguments)) for arguments in words.slurm.alternatives]
    for needs in words.kubernetes.alternatives:
        rows.append(("Kubernetes limits", json.dumps(needs.limits)))
        if needs.node_affinity is not None:
            rows.append(("  node affinity", json.dumps(needs.node_affinity)))
    if words.kubernetes.device_selector is not None:
        rows.append(("Kubernetes DRA", words.kubernetes.device_selector))
    rows += [("Ray", json.dumps(resources)) for resources in words.ray.alternatives]
    notes = [*words.slurm.notes, *words.kubernetes.notes, *words.ray.notes]
    return [*rows, *(("note", note) for note in notes)]
