"""`tightfit jobs`: submit, list, show, watch and cancel training runs, and read their logs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, get_args

from planner_service.chain.quantities import format_bytes
from planner_service.cli.job_watch import events_until_over
from planner_service.cli.remote import add_planner_option, asking
from planner_service.cli.request_file import UnreadableRequest, read_document
from planner_service.cli.tables import on_one_line, table
from planner_service.contract.attempts import AttemptRecord
from planner_service.contract.job_events import JobEvent
from planner_service.contract.jobs import Job, JobState

if TYPE_CHECKING:
    from planner_service.client import PlannerClient

NOT_SUCCEEDED = 1
"""Exit status of `watch` for a job that failed or was cancelled."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "jobs",
        help="submit, list, watch and cancel training runs",
        description="Training runs that a service keeps and gives to workers. TIGHTFIT_API_KEY is the key, "
        "where the service asks for one.",
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    submit = _action(actions, "submit", _submit, "queue a training run")
    submit.add_argument(
        "file", metavar="JOB", help="a worker's job file (YAML or JSON), or - for JSON on standard input"
    )
    submit.add_argument("--name", help="what to call it")
    submit.add_argument("--budget", help='another budget: bytes, "512MiB", "5%%" or "free"')
    submit.add_argument("--priority", type=int, help="-100..100, higher first (0)")
    submit.add_argument("--engine", help="local, agents, slurm, ray or kubernetes")
    submit.add_argument("--idempotency-key", metavar="KEY", help="sent twice, it makes one job")
    submit.add_argument("--watch", action="store_true", help="show its events until it is over")
    listing = _action(actions, "list", _list, "the latest jobs")
    listing.add_argument("--state", choices=get_args(JobState), help="only jobs in this state (all)")
    listing.add_argument("--limit", type=int, default=50, help="at most so many (50)")
    _of_job(_action(actions, "show", _show, "one job and its attempts"))
    _of_job(_action(actions, "watch", _watch, "a job's events until it is over; status 1 unless it succeeds"))
    _of_job(_action(actions, "cancel", _cancel, "stop a job"))
    logs = _action(actions, "logs", _logs, "what a job's workers wrote")
    _of_job(logs)
    logs.add_argument("--attempt", type=int, help="of one attempt only")


Command = Callable[["PlannerClient", argparse.Namespace], int]


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str, command: Command, meaning: str
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=meaning, description=f"{meaning[0].upper()}{meaning[1:]}.")
    add_planner_option(parser)
    if name not in {"watch", "logs"}:
        parser.add_argument("--json", action="store_true", help="print the service's answer as it is")
    parser.set_defaults(run=partial(_run, command))
    return parser


def _run(command: Command, args: argparse.Namespace) -> int:
    with asking(args.planner) as client:
        return command(client, args)


def _of_job(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job_id", metavar="JOB", help="the job's id")


def _submit(client: PlannerClient, args: argparse.Namespace) -> int:
    record = read_document(args.file)
    if not isinstance(record, dict):
        raise UnreadableRequest(args.file, "a job is a mapping of fields: model, sequence, training, budget")
    # The paths of a job file's report are its worker's; a service's worker reports to the service.
    request = {name: value for name, value in record.items() if name != "report"}
    changes = {name: getattr(args, name) for name in ("name", "budget", "priority", "engine")}
    request.update({name: value for name, value in changes.items() if value is not None})
    job = client.submit_job(request, idempotency_key=args.idempotency_key)
    print(job.model_dump_json(indent=2) if args.json else job.id, flush=True)
    if job.state == "queued" and job.detail:
        print(on_one_line(job.detail), file=sys.stderr, flush=True)
    return _follow(client, job.id) if args.watch else 0


def _list(client: PlannerClient, args: argparse.Namespace) -> int:
    page = client.jobs(state=args.state, limit=args.limit)
    if args.json:
        print(page.model_dump_json(indent=2))
        return 0
    head = ("job", "name", "state", "reason", "attempt", "node", "iteration", "loss", "updated")
    print(table([head, *map(_row, page.jobs)], right_aligned=frozenset({4, 6, 7})))
    if page.next_cursor is not None:
        print(f"the latest {len(page.jobs)}: --limit shows more", file=sys.stderr)
    return 0


def _row(job: Job) -> tuple[str, ...]:
    return (
        job.id,
        job.name,
        job.state,
        job.reason or "",
        str(job.attempt),
        job.node or "",
        str(job.iteration),
        "" if job.loss is None else f"{job.loss:.3f}",
        f"{job.updated_at:%Y-%m-%d %H:%M:%S}",
    )


def _show(client: PlannerClient, args: argparse.Namespace) -> int:
    job = client.job(args.job_id)
    if args.json:
        print(job.model_dump_json(indent=2))
        return 0
    print(table(list(_facts(job))))
    attempts = client.attempts(args.job_id)
    if attempts:
        head = ("attempt", "node", "opened", "outcome", "detail")
        rows = [
            (
                str(attempt.number),
                attempt.node or "",
                f"{attempt.opened_at:%Y-%m-%d %H:%M:%S}",
                attempt.outcome or ("running" if _is_running(job, attempt) else "silent"),
                attempt.detail or "",
            )
            for attempt in attempts
        ]
        print("\n" + table([head, *rows], right_aligned=frozenset({0})))
    return 0


def _is_running(job: Job, attempt: AttemptRecord) -> bool:
    """Those before the last were lost, and replaced."""
    return job.state == "running" and attempt.number == job.attempt


def _facts(job: Job) -> Iterator[tuple[str, str]]:
    yield "job", job.id
    yield "name", job.name
    yield "state", job.state + (f" ({job.reason})" if job.reason else "")
    if job.cancel_requested:
        yield "", "its worker is to stop at its next heartbeat"
    if job.detail:
        yield "detail", job.detail
    yield "budget", format_bytes(job.budget) if isinstance(job.budget, int) else job.budget
    needed = job.needed_bytes
    yield "needed", f"{format_bytes(needed.cpu)} on a CPU, {format_bytes(needed.cuda)} on a GPU"
    yield "engine", job.engine + (f" ({job.engine_reference})" if job.engine_reference else "")
    yield "failures", str(job.failures)
    yield "iteration", f"{job.iteration} of {job.request.training.iterations}"
    if job.loss is not None:
        yield "loss", f"{job.loss:.4g}"
    if job.measurement_id:
        yield "measurement", job.measurement_id


def _watch(client: PlannerClient, args: argparse.Namespace) -> int:
    return _follow(client, args.job_id)


def _follow(client: PlannerClient, job_id: str) -> int:
    """Print the job's events until it is over; whether it succeeded, as an exit status."""
    for event in events_until_over(client, job_id):
        print(on_one_line(_told(event)), flush=True)
    return 0 if client.job(job_id).state == "succeeded" else NOT_SUCCEEDED


def _told(event: JobEvent) -> str:
    what = event.state + (f" ({event.reason})" if event.reason else "")
    if event.kind == "progress":
        what = f"iteration {event.iteration}" + ("" if event.loss is None else f", loss {event.loss:.4g}")
    elif event.kind == "budget":
        what = f"budget {event.budget} bytes"
    elif event.kind == "cancel_requested":
        what = "asked to stop"
    detail = f": {event.detail}" if event.detail and event.kind == "state" else ""
    return f"{event.at:%H:%M:%S}  attempt {event.attempt}  {what}{detail}"


def _cancel(client: PlannerClient, args: argparse.Namespace) -> int:
    job = client.cancel_job(args.job_id)
    if args.json:
        print(job.model_dump_json(indent=2))
    else:
        print("asked to stop at its next heartbeat" if job.cancel_requested else job.state)
    return 0


def _logs(client: PlannerClient, args: argparse.Namespace) -> int:
    cursor: str | None = None
    while True:
        page = client.job_logs(args.job_id, attempt=args.attempt, cursor=cursor)
        for line in page.lines:
            print("\t".join(map(on_one_line, line.text.split("\t"))))
        cursor = page.next_cursor
        if cursor is None:
            return 0
