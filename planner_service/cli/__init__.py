"""The command `tightfit`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from planner_service.cli.commands import COMMANDS


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status of the process."""
    parser = argparse.ArgumentParser(prog="tightfit", description="Train inside a byte budget.")
    subparsers = parser.add_subparsers(required=True, metavar="command")
    for command in COMMANDS:
        command.add_parser(subparsers)
    args = parser.parse_args(argv)
    status: int = args.run(args)
    return status
