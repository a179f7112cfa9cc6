"""`tightfit-worker`: run jobs, probe models, show the proof, work for a service."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from executor import worker_commands
from executor.attempt.memory_cap import refused_bytes
from executor.errors import BudgetTooSmall, ExecutorError
from executor.jobs.job import InvalidJob, read_job
from executor.memory.budget import InvalidBudget, parse_budget
from executor.memory.cuda_memory import expandable_segments

_OWN_PACKAGES = ("executor", "planner_service")
_JOB_HELP = """\
a job file, YAML or JSON:

  model:    {kind: lstm, hidden_size: 256, embedding_size: 64}   # or gru, rnn, rev_gru, rev_lstm, nf_rev_gru,
                                    # nf_rev_lstm; num_layers, dtype, forget_bits
  data:     {text: python}          # the text that CPython carries, or the path of a UTF-8 file; characters
  sequence: {length: 1000, batch_size: 32}
  training: {optimizer: adam, learning_rate: 0.005, iterations: 10, seed: 0}   # or sgd, momentum
  budget:   5%                      # of full BPTT's activations; or bytes: 64MiB; or free
  host_budget: 1GiB                 # host memory that states or tapes may move to; none if left out
  report:   {output: report.json, weights: weights.pt, gradient_check_steps: 60}

exit status: 0 all promises kept, 1 a promise broken (the report says which), 2 refused.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parsed = _parser().parse_args(arguments)
    try:
        with _expandable_segments():
            status: int = parsed.run(parsed)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BudgetTooSmall as error:
        return _refused(f"budget: {error}; give at least {error.minimum_budget_bytes}")
    except (InvalidJob, InvalidBudget, ExecutorError, OSError) as error:
        return _refused(str(error))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in _OWN_PACKAGES:
            raise
        return _refused(f"this needs the package {error.name}: install tightfit with what it depends on")
    except Exception as error:
        if refused_bytes(error) is not None:
            return _refused(f"out of memory: {str(error).partition(chr(10))[0]}")
        if not _is_planner_error(error):
            raise
        return _refused(str(error))
    return status


@contextmanager
def _expandable_segments() -> Iterator[None]:
    """Before CUDA is first used, and for the processes that a command starts: whoever started this one."""
    added = expandable_segments(os.environ)
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _refused(reason: str) -> int:
    print(f"tightfit-worker: {reason}", file=sys.stderr)
    return 2


def _is_planner_error(error: Exception) -> bool:
    """Whether a planning service refused or does not answer; its client is loaded only where it is used."""
    client = sys.modules.get("planner_service.client")
    return client is not None and isinstance(error, client.PlannerError)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tightfit-worker",
        description="Train unrolled models inside a byte budget, exactly, and report what was measured.",
    )
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="print the versions and end")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands)
    _add_probe(commands)
    _add_demo(commands)
    worker_commands.add_parsers(commands)
    return parser


class _ShowVersion(argparse.Action):
    """Looks the version up only where it is asked for: a checkout that is not installed has none."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        try:
            ours = version("tightfit")
        except PackageNotFoundError:
            ours = "from a checkout that is not installed"
        print(f"tightfit {ours}, torch {torch.__version__}")
        parser.exit()


def _add_run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "run",
        help="plan a job, train it under the plan, report",
        description="Plan a job, train it under the plan, report the measured next to the projected peak.",
        epilog=_JOB_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("job", type=Path, help="the job file")
    command.add_argument(
        "--planner", metavar="URL", help="ask the planning service at URL (default: in process)"
    )
    command.add_argument(
        "--budget", metavar="BUDGET", help="train under this budget, whatever the job says: 64MiB, 5%%, free"
    )
    command.add_argument("--output", type=Path, help="write the JSON report here, whatever the job says")
    command.add_argument("--quiet", action="store_true", help="no progress lines")
    command.set_defaults(run=_run)


def _add_probe(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "probe",
        help="measure a job's model: bytes and seconds per segment length",
        description=(
            "Measure the bytes and seconds of a job's model, segment length by segment length, and print "
            "the profile as JSON: what a plan request takes as `profile`."
        ),
        epilog=_JOB_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("job", type=Path, help="the job file")
    command.add_argument("--output", type=Path, help="write the profile here instead of printing it")
    command.add_argument("--planner", metavar="URL", help="also send the profile to the service at URL")
    command.set_defaults(run=_probe)


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "demo",
        help="train an LSTM in a twentieth of its activation memory, next to full BPTT",
        description=(
            "Start the planning service, plan a character-level LSTM over 1,000 steps of real text in 5 % of "
            "the activation bytes of full BPTT, train it next to full BPTT, print one table and draw one "
            "picture. Exit status 1 when a promise is broken."
        ),
    )
    command.add_argument(
        "--output-dir", type=Path, default=Path("demo-output"), help="where to write (demo-output)"
    )
    command.set_defaults(run=_demo)


def _run(parsed: argparse.Namespace) -> int:
    from executor.jobs.kept import require_apart
    from executor.jobs.ranks import Ranks
    from executor.worker import run_job

    is_first = Ranks.from_environ(os.environ).is_first
    job = read_job(parsed.job)
    if parsed.budget is not None:
        job = dataclasses.replace(job, budget=parse_budget(parsed.budget))
    progress = _progress if is_first and not parsed.quiet else _silent
    output = parsed.output or job.report.output
    require_apart({"the job file": parsed.job, "report.output": output, "report.weights": job.report.weights})
    report = run_job(
        job, name=parsed.job.stem, planner_url=parsed.planner, output=parsed.output, progress=progress
    )
    if is_first:
        _answer(report.table())
    for broken in report.broken_promises:
        print(f"BROKEN PROMISE: {broken}", file=sys.stderr)
    return 1 if report.broken_promises else 0


def _probe(parsed: argparse.Namespace) -> int:
    from executor.jobs.kept import require_apart, require_writable
    from executor.jobs.prepared import PreparedJob
    from executor.memory.device import device_name

    require_writable({"--output": parsed.output})
    require_apart({"the job file": parsed.job, "--output": parsed.output})
    prepared = PreparedJob.of(read_job(parsed.job), _progress)
    text = json.dumps(prepared.profile(), indent=2)
    if parsed.output is None:
        _answer(text)
    else:
        parsed.output.write_text(text + "\n", encoding="utf-8")
        _progress(f"profile: {parsed.output}")
    if parsed.planner is not None:
        from executor.service.link import send_profile

        device = device_name(prepared.loss.device)
        profile_id = send_profile(parsed.planner, {**prepared.profile(), "device_name": device})
        _progress(f"profile {profile_id} at {parsed.planner}, for plans that name device {device!r}")
    return 0


def _demo(parsed: argparse.Namespace) -> int:
    from executor.demo import run_demo

    status: int = run_demo(parsed.output_dir, _progress)
    return status


def _answer(text: str) -> None:
    """Print what was found. A reader that has left (head, say) changes nothing of the exit status."""
    try:
        print(text, flush=True)
    except BrokenPipeError:  # Python would try once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _silent(_line: str) -> None:
    """Says nothing."""


if __name__ == "__main__":
    sys.exit(main())
