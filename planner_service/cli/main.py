"""The entry point: parse, run the command, turn every refusal into a problem document.

Exit status 0: done. 1: this program failed. 2: the request was refused (the document is on standard
error) or the command line was wrong. 130: interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version

from pydantic import ValidationError

from planner_service.chain import PlanningError
from planner_service.cli.commands import COMMANDS
from planner_service.cli.remote import RemoteRefusal
from planner_service.cli.streams import prepare_streams, silence
from planner_service.contract import ProblemDocument, problem_from_error, problem_from_validation

FAILED = 1
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
    prepare_streams()
    status = 0
    try:
        try:
            status = _answered(argv)
        finally:  # argparse ends the process where it has printed its help
            sys.stdout.flush()  # what is buffered would meet a reader that has left only at exit
    except BrokenPipeError:  # the reader (head, say) has seen enough
        silence(sys.stdout)
    except OSError as error:  # a full disk under the answer
        silence(sys.stdout)
        return _say(f"tightfit: {error}", status=FAILED)
    return status


def _answered(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except ValidationError as error:
        return _refuse(problem_from_validation(error))
    except PlanningError as error:
        return _refuse(problem_from_error(error))
    except RemoteRefusal as refusal:
        return _refuse(refusal.problem)
    except KeyboardInterrupt:
        return INTERRUPTED


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
    return _say(problem.model_dump_json(indent=2, exclude_none=True), status=REFUSED)


def _say(text: str, *, status: int) -> int:
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:  # nobody listens, or the disk is full
        silence(sys.stderr)
    return status
