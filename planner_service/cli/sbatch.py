"""`tightfit sbatch`: submit a job file to Slurm, asking for what its plan needs."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

from planner_service.chain import PlanningError
from planner_service.cli.remote import API_KEY, RemoteRefusal
from planner_service.cli.request_file import UnreadableRequest, read_document, require_for_worker
from planner_service.cli.slurm_holes import add_gpu_memory, holes_of_cluster
from planner_service.contract import PlacementReply, PlacementRequest, ProblemDocument
from planner_service.contract.placement import JobPlacement, SchedulerWordsRecord

PLANNER_SECONDS = 1.0
"""A planner that takes longer is done without: the same plan is made here."""

NOT_ABOUT_THE_JOB = frozenset({401, 403, 413, 429, 503})
"""Refusals for reasons of the service's own, as in `deploy/slurm/cli_filter.lua`."""

_EPILOG = """\
examples:
  tightfit sbatch job.yaml --gpu-memory a100=80GiB              the GPU types that hold the job's plan
  tightfit sbatch job.yaml --holes holes.json --sbatch-options="--time=2:00:00 --account=speech"
  tightfit sbatch job.yaml --device cpu --print                 show the command and the script only

The job runs `tightfit-worker run` under the budget that fits every acceptable type; --setup is a line of
shell before it, such as ". env/bin/activate".

exit status: that of sbatch; 1 the job fits nowhere; 2 refused, with the problem document.
"""
FITS_NOWHERE = 1


class NoWords(PlanningError):
    """Devices hold the job, but none that Slurm has a name for."""


class NoSbatch(PlanningError):
    """There is no sbatch here."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `sbatch` to the commands."""
    parser = subparsers.add_parser(
        "sbatch",
        help="submit a job file to Slurm, asking for what its plan needs",
        description="Plan a job against the nodes of a Slurm cluster and submit it with the memory or the "
        "GPU types that hold the plan. Needs neither a GPU nor PyTorch.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("job", metavar="JOB", help="a job file, in YAML or JSON")
    parser.add_argument("--holes", metavar="FILE", help="of `tightfit slurm-holes` (default: ask scontrol)")
    add_gpu_memory(parser)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="kind of device (cuda)")
    parser.add_argument("--planner", metavar="URL", help="ask this service; without it, plan here")
    parser.add_argument("--setup", default="", metavar="SHELL", help="line of shell before the worker")
    parser.add_argument("--print", action="store_true", help="show what would be submitted, and end")
    parser.add_argument(
        "--sbatch-options", type=shlex.split, default=[], metavar="WORDS", help="further options for sbatch"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Place, submit, and pass sbatch's exit status on; refusals are raised."""
    placed = _placed(arguments)
    if placed.words is None:
        print(f"{arguments.job}: no node of this cluster holds it; {placed.shortage}", file=sys.stderr)
        return FITS_NOWHERE
    command = ["sbatch", *sbatch_words(arguments.job, placed.words), *arguments.sbatch_options]
    # A job file's budget is what comes on top of what every plan holds throughout.
    budget_bytes = placed.words.budget_bytes - placed.held_bytes
    script = batch_script(arguments.job, budget_bytes=budget_bytes, setup=arguments.setup)
    if arguments.print:
        print(shlex.join(command), "<<'END'", sep=" ")
        print(script, end="END\n")
        return 0
    try:
        return subprocess.run(command, input=script, text=True, check=False).returncode  # noqa: S603 - sbatch
    except FileNotFoundError as error:
        raise NoSbatch("no command sbatch on this machine: run this where Slurm is installed") from error


def sbatch_words(job: str, words: SchedulerWordsRecord) -> list[str]:
    """Arguments of sbatch: the quickest type, and a comment that says what the plan needs. Raises NoWords."""
    if not words.slurm.alternatives:
        raise NoWords(f"{job} fits, but Slurm cannot be asked for it: {'; '.join(words.slurm.notes)}")
    request_mib = -(-words.request_bytes // 2**20)
    return [
        f"--job-name={Path(job).stem}",
        f"--comment=tightfit plan={words.plan_id} request_mib={request_mib}",
        "--requeue",
        *words.slurm.alternatives[0],
    ]


def batch_script(job: str, *, budget_bytes: int, setup: str = "") -> str:
    """The batch script: the worker, under a budget that every acceptable type holds."""
    worker = ["tightfit-worker", "run", str(Path(job).resolve()), "--budget", str(budget_bytes)]
    lines = ["#!/bin/sh", *([setup] if setup else []), f"exec {shlex.join(worker)}"]
    return "\n".join(lines) + "\n"


def _placed(arguments: argparse.Namespace) -> JobPlacement:
    if arguments.job == "-":
        raise UnreadableRequest("-", "the nodes read the job file too: name one that they see")
    document = read_document(arguments.job)
    if not isinstance(document, dict) or "budget" not in document:
        raise UnreadableRequest(arguments.job, "a job file has a model, a sequence, a training and a budget")
    require_for_worker(arguments.job, document)
    with_gpus = arguments.device == "cuda"  # a job on processors is told nothing of GPUs' memory
    holes = (
        read_document(arguments.holes)
        if arguments.holes
        else holes_of_cluster(dict(arguments.gpu_memory), with_gpus=with_gpus)
    )
    request = PlacementRequest.model_validate(
        {
            "jobs": [{"name": Path(arguments.job).stem, "job": document, "device": arguments.device}],
            "holes": holes,
            "most_offers": 1,
            "planned_offers": 0,
        }
    )
    return _ask(request, arguments.planner).jobs[0]


def _ask(request: PlacementRequest, url: str | None) -> PlacementReply:
    if url is not None:
        from planner_service.client import PlannerClient, PlannerRefused, PlannerUnreachable

        try:
            key = os.environ.get(API_KEY)
            with PlannerClient(url, timeout_seconds=PLANNER_SECONDS, api_key=key) as planner:
                return planner.place(request)
        except PlannerUnreachable as error:
            print(f"tightfit sbatch: {error.reason}; planning here", file=sys.stderr)
        except PlannerRefused as refused:
            if refused.status not in NOT_ABOUT_THE_JOB:
                raise RemoteRefusal(ProblemDocument.model_validate(refused.problem)) from refused
            print(f"tightfit sbatch: {refused}; planning here", file=sys.stderr)
    from planner_service.planning import Planner  # loads the kernels: only when they are needed

    return Planner().place(request)
