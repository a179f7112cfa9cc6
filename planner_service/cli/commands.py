"""The commands, in the order in which `tightfit --help` lists them.

A command is a module with `add_parser(subparsers)`, which sets `run` (arguments -> exit status) as a
default of its parser. Imports inside `run` keep `tightfit --help` fast.
"""

from __future__ import annotations

import argparse
from typing import Protocol

from planner_service.cli import (
    compare,
    export,
    frontier,
    jobs,
    keys,
    kubernetes,
    nodes,
    openapi,
    place,
    plan,
    probes,
    sbatch,
    serve,
    simulate,
    slurm_holes,
)


class Command(Protocol):
    """What a command's module offers."""

    def add_parser(self, subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
        """Add the command's parser; its `run` default takes the arguments and returns the exit status."""


COMMANDS: tuple[Command, ...] = (
    plan,
    frontier,
    compare,
    simulate,
    place,
    sbatch,
    slurm_holes,
    kubernetes,
    serve,
    jobs,
    nodes,
    probes,
    keys,
    export,
    openapi,
)
