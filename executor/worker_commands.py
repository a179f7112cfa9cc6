"""The commands of `tightfit-worker` that work for a service: `attempt` and `agent`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from executor.memory.budget import InvalidBudget, parse_budget_bytes
from executor.native.environment import API_KEY, PLANNER_URL, checked_node_name, node_name

Number = TypeVar("Number", int, float)

MAXIMUM_SECONDS = 10**7
"""A third of a year; no wait of a system call may be much longer."""

_ATTEMPT_HELP = """\
environment: TIGHTFIT_LAUNCH_TOKEN, the right to open attempts at this one job.

exit status: 0 succeeded or cancelled, 1 an error or out of memory (reported), 2 refused, 3 another attempt
took over, 4 the report was not taken (it is in the work folder), 75 stopped and given back.
"""
_AGENT_HELP = """\
environment: TIGHTFIT_API_KEY, a key with the scope `worker`, where the service asks for keys.

SIGTERM: every job finishes its step, is saved and given back; then the agent ends.
"""


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register both commands."""
    _add_attempt(commands)
    _add_agent(commands)


def _add_attempt(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "attempt",
        help="one attempt at a service's job: what every engine runs",
        description="Open an attempt at a job of the service, train under its plan, report.",
        epilog=_ATTEMPT_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--job", required=True, metavar="ID", help="the job's id at the service")
    _add_common(command)
    command.set_defaults(run=_attempt)


def _add_agent(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "agent",
        help="claim jobs of a service and run them on this node",
        description="Register this node, claim jobs that fit its memory, run each in its own process.",
        epilog=_AGENT_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_common(command)
    command.add_argument("--slots", type=_positive, default=1, help="jobs at a time (1)")
    command.add_argument("--jobs", type=_positive, help="leave after that many jobs (default: never)")
    command.add_argument(
        "--poll-seconds", type=_seconds, default=2.0, help="between two questions for a job (2)"
    )
    command.add_argument("--local", action="store_true", help="take the jobs of the engine `local` too")
    command.set_defaults(run=_agent)


def _add_common(command: argparse.ArgumentParser) -> None:
    url = os.environ.get(PLANNER_URL) or None
    command.add_argument(
        "--planner",
        type=_service_url,
        required=url is None,
        default=url,
        metavar="URL",
        help=f"the service ({PLANNER_URL})",
    )
    command.add_argument(
        "--work-dir", type=Path, default=Path("tightfit-work"), help="weights files and logs (tightfit-work)"
    )
    command.add_argument(
        "--node",
        type=_node,
        default=node_name(),
        metavar="NAME",
        help="this node's name (Slurm's where there is one, or the host's)",
    )
    command.add_argument("--memory", type=_memory, metavar="BYTES", help="most memory to use, such as 8GiB")
    command.add_argument(
        "--data-root",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="folder whose files jobs may name as data.text; may be given again",
    )
    command.add_argument(
        "--grace-seconds", type=_seconds, default=30.0, help="to finish the step when asked to stop (30)"
    )
    command.add_argument("--parent", type=int, metavar="PID", help="stop when that process ends")
    command.add_argument("--save-seconds", type=_seconds, default=60.0, help="between two weights files (60)")


def _attempt(parsed: argparse.Namespace) -> int:
    from executor.attempt.command import AttemptOptions, run_attempt

    options = AttemptOptions(
        planner_url=parsed.planner,
        job_id=parsed.job,
        work_dir=parsed.work_dir,
        node=parsed.node,
        data_roots=parsed.data_root,
        memory_bytes=parsed.memory,
        save_seconds=parsed.save_seconds,
        grace_seconds=parsed.grace_seconds,
        parent=parsed.parent,
    )
    return int(run_attempt(options))


def _agent(parsed: argparse.Namespace) -> int:
    from executor.agent.agent import Agent, AgentOptions

    options = AgentOptions(
        planner_url=parsed.planner,
        node=parsed.node,
        work_dir=parsed.work_dir.resolve(),
        slots=parsed.slots,
        memory_bytes=parsed.memory,
        data_roots=[root.resolve() for root in parsed.data_root],
        engines=("agents", "local") if parsed.local else ("agents",),
        api_key=os.environ.get(API_KEY),
        poll_seconds=parsed.poll_seconds,
        save_seconds=parsed.save_seconds,
        grace_seconds=parsed.grace_seconds,
        jobs=parsed.jobs,
        parent=parsed.parent,
    )
    return Agent(options).run()


def _service_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        is_address = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # half an IPv6 address, a port that is no number
        is_address = False
    if not is_address:
        raise argparse.ArgumentTypeError(f"{text!r} is no address of a service: give http://HOST:PORT")
    return text


def _node(text: str) -> str:
    try:
        return checked_node_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _memory(text: str) -> int:
    try:
        return parse_budget_bytes(text)
    except InvalidBudget as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error.reason}") from error


def _seconds(text: str) -> float:
    seconds = _number(text, float)
    if not 0 <= seconds <= MAXIMUM_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r}: give 0 to {MAXIMUM_SECONDS} seconds")
    return seconds


def _positive(text: str) -> int:
    number = _number(text, int)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be at least 1")
    return number


def _number(text: str, kind: Callable[[str], Number]) -> Number:
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
