"""The entry point: parse, run the command, turn every refusal into a problem document.

Exit status 0: done. 1: this program failed. 2: the request was refused (the document is on standard
error) or the command line was wrong. 130: interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import TextIO

from pydantic import ValidationError

from planner_service.chain import PlanningError
from planner_service.cli.commands import COMMANDS
from planner_service.cli.remote import RemoteRefusal
from planner_service.contract import ProblemDocument, problem_from_error, problem_from_validation

REFUSED = 2
INTERRUPTED = 130

_EPILOG = """\
examples:
  tightfit plan request.json               a plan as a table
  tightfit plan request.json --json        the reply as the service gives it
  tightfit plan - --budget 512MiB          the request from standard input, another budget
  tightfit plan --help                     what a request looks like
  tightfit serve --port 8080               the same planner over HTTP
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `tightfit` with the arguments `argv` (default: the process's own); returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        status = int(arguments.run(arguments))
        sys.stdout.flush()  # what is buffered would meet a reader that has left only at exit
        return status
    except ValidationError as error:
        return _refuse(problem_from_validation(error))
    except PlanningError as error:
        return _refuse(problem_from_error(error))
    except RemoteRefusal as refusal:
        return _refuse(refusal.problem)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader (head, say) has seen enough
        _close(sys.stdout)
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tightfit",
        description="Plan how to train a recurrent or other chain-shaped model inside a byte budget: "
        "exactly, in the least time.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="print the version and end")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


class _ShowVersion(argparse.Action):
    """Looks the version up only where it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"tightfit {version('tightfit')}")
        parser.exit()


def _refuse(problem: ProblemDocument) -> int:
    try:
        print(problem.model_dump_json(indent=2, exclude_none=True), file=sys.stderr, flush=True)
    except BrokenPipeError:
        _close(sys.stderr)
    return REFUSED


def _close(stream: TextIO) -> None:
    """Let what is left to write go nowhere: Python would complain of its reader once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
