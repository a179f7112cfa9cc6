"""`tightfit kubernetes job`: a job as Kubernetes objects, for `kubectl apply`."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

from planner_service.chain import PlanningError
from planner_service.cli.place import job_of_document
from planner_service.cli.progress import progress
from planner_service.cli.request_file import UnreadableRequest, read_document, require_for_worker
from planner_service.contract import PlacementRequest
from planner_service.contract.placement import JobPlacement, SchedulerWordsRecord
from planner_service.kubernetes.admission import (
    BUDGET_ANNOTATION,
    LIMIT_BYTES_ANNOTATION,
    REQUEST_BYTES_ANNOTATION,
)
from planner_service.kubernetes.objects import (
    PLAN_ANNOTATION,
    JobSpec,
    Manifest,
    PodResources,
    claim_template,
    config_map,
    job_manifest,
)

JOB_FILE = "job.json"
JOB_FOLDER = "/job"

_EPILOG = """\
examples:
  tightfit kubernetes job examples/jobs/small.json --holes cluster.yaml | kubectl apply -f -
  tightfit kubernetes job job.yaml --holes cluster.yaml --claim dra --queue gpus --namespace research
  tightfit kubernetes job request.json --holes cluster.yaml --image me/model --command 'python train.py'

A job file runs as `tightfit-worker run`, its budget set to what the plan may hold on every acceptable device
beside weights and optimizer state. A request for a plan needs a --command of its own, which finds the bytes
in $TIGHTFIT_BUDGET_BYTES.
"""


class NothingHoldsIt(PlanningError):
    """No type of device of the cluster holds the job."""

    def __init__(self, placed: JobPlacement) -> None:
        self.minimum_budget_bytes = placed.minimum_budget_bytes
        self.missing_bytes = placed.offers[0].missing_bytes
        super().__init__(
            f"no type of device holds the job: {placed.shortage}; take a smaller batch, or allow more time"
        )


class NoWords(PlanningError):
    """Devices hold the job, but none that Kubernetes could be asked for."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `kubernetes` to the commands."""
    parser = subparsers.add_parser(
        "kubernetes", help="a job as Kubernetes objects", description="A job as Kubernetes objects."
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    job = actions.add_parser(
        "job",
        help="print the Job of a job file or a request",
        description="Plan a job for the GPUs of a cluster and print the batch/v1 Job that runs it there.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    job.add_argument("request", metavar="REQUEST", help="a job file or a request for a plan; JSON or YAML")
    job.add_argument("--holes", metavar="FILE", required=True, help="the devices, as for `tightfit place`")
    job.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="kind of device (cuda)")
    job.add_argument(
        "--maximum-slowdown", type=float, metavar="RATIO", help="1.5: at most half as long again"
    )
    job.add_argument(
        "--claim",
        choices=("labels", "dra"),
        default="labels",
        help="labels: a count of GPUs on nodes with a product; dra: a claim by each device's memory",
    )
    job.add_argument("--name", help="of the objects (that of the job, or of its file)")
    job.add_argument("--namespace", default="default", help="of the objects (default)")
    job.add_argument(
        "--image", default="tightfit-worker:latest", help="of the container (tightfit-worker:latest)"
    )
    job.add_argument("--queue", default="", metavar="NAME", help="Kueue's local queue; it starts the job")
    job.add_argument("--json", action="store_true", help="one List in JSON instead of YAML documents")
    job.add_argument(
        "--command", default="", metavar="TEXT", help="what the container runs, if not the job file"
    )
    job.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Place, build and print; refusals are raised."""
    document = read_document(arguments.request)
    if not isinstance(document, dict):
        raise UnreadableRequest(arguments.request, "a request or a job file is an object with a model")
    with progress("placing"):
        placed = _placed(arguments, document)
    objects = manifests(arguments, document, placed)
    print(_as_json(objects) if arguments.json else _as_yaml(objects))
    return 0


def _placed(arguments: argparse.Namespace, document: Mapping[str, Any]) -> JobPlacement:
    from planner_service.planning import Planner  # loads the kernels: only for this command

    job = job_of_document(arguments.request, document) | {"device": arguments.device}
    if arguments.maximum_slowdown is not None:
        job["maximum_slowdown_ratio"] = arguments.maximum_slowdown
    holes = read_document(arguments.holes)
    holes = holes.get("holes", holes) if isinstance(holes, dict) else holes
    record = {"jobs": [job], "holes": holes, "planned_offers": 0, "most_offers": 1}
    (placed,) = Planner().place(PlacementRequest.model_validate(record)).jobs
    return placed


def manifests(
    arguments: argparse.Namespace, document: Mapping[str, Any], placed: JobPlacement
) -> list[Manifest]:
    """The objects, those first that others need. Raises NothingHoldsIt and NoWords."""
    words = placed.words
    if words is None:
        raise NothingHoldsIt(placed)
    name = arguments.name or object_name(placed.name)
    claimed = arguments.claim == "dra" and words.kubernetes.device_selector is not None
    files = _files(arguments, document, budget_bytes=words.budget_bytes - placed.held_bytes)
    objects = []
    if claimed:
        objects.append(_claim_template(name, arguments.namespace, words, count=_devices_of(document)))
    if files:
        objects.append(config_map(name, arguments.namespace, files))
    command = shlex.split(arguments.command) or ["tightfit-worker", "run", f"{JOB_FOLDER}/{JOB_FILE}"]
    spec = JobSpec(
        name=name,
        namespace=arguments.namespace,
        image=arguments.image,
        command=command,
        environment={"TIGHTFIT_BUDGET_BYTES": str(words.budget_bytes)},
        resources=PodResources(claim_template=name) if claimed else _counted(words),
        queue=arguments.queue,
        config_map=name if files else "",
        config_folder=JOB_FOLDER,
        annotations={
            PLAN_ANNOTATION: words.plan_id,
            BUDGET_ANNOTATION: str(words.budget_bytes),
            REQUEST_BYTES_ANNOTATION: str(words.request_bytes),
            LIMIT_BYTES_ANNOTATION: str(words.limit_bytes),
        },
    )
    return [*objects, job_manifest(spec)]


def _files(
    arguments: argparse.Namespace, document: Mapping[str, Any], *, budget_bytes: int
) -> dict[str, str]:
    """The job file as the worker gets it; none where the request brings a command of its own."""
    if arguments.command:
        return {}
    if "budget" not in document:
        raise UnreadableRequest(
            arguments.request, "a request for a plan is no job: say by --command what is to run"
        )
    require_for_worker(arguments.request, document)
    return {JOB_FILE: json.dumps({**document, "budget": budget_bytes}, indent=2)}


def _claim_template(name: str, namespace: str, words: SchedulerWordsRecord, *, count: int) -> Manifest:
    return claim_template(
        name,
        namespace,
        device_class=words.kubernetes.device_class or "",
        selector=words.kubernetes.device_selector or "",
        count=count,
    )


def _devices_of(document: Mapping[str, Any]) -> int:
    """Devices of one pod, as the request that was placed says."""
    return int(document.get("devices", 1))


def _counted(words: SchedulerWordsRecord) -> PodResources:
    if not words.kubernetes.alternatives:
        raise NoWords("only fractions of devices hold the job, which Kubernetes does not give out")
    first = words.kubernetes.alternatives[0]
    return PodResources(limits=first.limits, node_affinity=first.node_affinity)


def object_name(text: str) -> str:
    """A name that Kubernetes allows: lower case letters, digits and dashes, at most 63."""
    stem = text.rpartition("/")[2].rpartition(".")[0] or text
    return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:63].rstrip("-") or "job"


def _as_json(objects: list[Manifest]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}, indent=2)


def _as_yaml(objects: list[Manifest]) -> str:
    import yaml

    class Readable(yaml.SafeDumper):
        """Texts of several lines as such: a job file in a ConfigMap stays readable."""

    def written(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        style = "|" if "\n" in text else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Readable.add_representer(str, written)
    return str(yaml.dump_all(objects, Dumper=Readable, sort_keys=False)).rstrip()
