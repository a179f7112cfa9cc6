"""`tightfit slurm-holes`: the nodes of a Slurm cluster as a file of holes."""

from __future__ import annotations

import argparse
import json
import subprocess

from planner_service.chain import PlanningError

_EPILOG = """\
examples:
  tightfit slurm-holes --gpu-memory a100=80GiB --gpu-memory t4=15GiB > /etc/slurm/tightfit-holes.json
  tightfit place job.yaml --holes /etc/slurm/tightfit-holes.json

Write the file anew when nodes come or go. The names of the types are those of `sinfo --format=%G`.
"""
LISTING_SECONDS = 30


class NoSlurm(PlanningError):
    """The nodes cannot be listed."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `slurm-holes` to the commands."""
    parser = subparsers.add_parser(
        "slurm-holes",
        help="list the nodes of a Slurm cluster as holes for `place` and `sbatch`",
        description="Print the holes of a Slurm cluster: main memory and GPUs of every node in service.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_gpu_memory(parser)
    parser.set_defaults(run=run)


def add_gpu_memory(parser: argparse.ArgumentParser) -> None:
    """Add the option that tells the memory of each type of GPU."""
    parser.add_argument(
        "--gpu-memory",
        action="append",
        default=[],
        type=_pair,
        metavar="TYPE=SIZE",
        help="nominal memory of one GPU of a type; once per type",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the holes, one a line."""
    holes = holes_of_cluster(dict(arguments.gpu_memory))
    print("[" + ",\n ".join(json.dumps(hole) for hole in holes) + "]")
    return 0


def holes_of_cluster(gpu_memory: dict[str, str], *, with_gpus: bool = True) -> list[dict[str, object]]:
    """The holes of the cluster that `scontrol` talks to. Raises NoSlurm and UnknownGpuMemory."""
    from planner_service.placement.slurm_nodes import slurm_holes

    command = ["scontrol", "show", "nodes", "--oneliner"]
    try:
        listed = subprocess.run(  # noqa: S603 - a fixed command
            command, capture_output=True, text=True, timeout=LISTING_SECONDS, check=True
        )
    except FileNotFoundError as error:
        raise NoSlurm("no command scontrol on this machine: run this where Slurm is installed") from error
    except subprocess.TimeoutExpired as error:
        raise NoSlurm(f"scontrol gave no answer within {LISTING_SECONDS} s") from error
    except subprocess.CalledProcessError as error:
        raise NoSlurm(f"scontrol: {error.stderr.strip()}") from error
    return slurm_holes(listed.stdout, gpu_memory, with_gpus=with_gpus)


def _pair(text: str) -> tuple[str, str]:
    kind, _, size = text.partition("=")
    if not kind or not size:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form TYPE=SIZE, such as a100=80GiB")
    return kind, size
