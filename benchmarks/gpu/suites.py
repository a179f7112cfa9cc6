"""The suite's tests marked `gpu`: which files have some, and how they are run beside one another.

Peaks are counted per process and no test looks at a clock, so that several processes may share the device:
one that is lost with it takes only its own tests along, and the compiler of Triton's programs, which works on
one core, is not waited for by the others.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any, NamedTuple

from benchmarks.machine import ROOT
from executor.memory.cuda_memory import expandable_segments

GRACE_SECONDS = 3.0
"""Between asking tests for what they have found so far and ending them."""
CAPPED_TESTS = "tests/executor/test_gpu_caps.py"
FIRST_TESTS = "tests/executor/test_gpu.py"
_TRITON = "triton_devices"
"""Imported by the tests of Triton's programs."""
_MARKS = ("pytest.mark." + "gpu", _TRITON)
_SHOWN_CHARACTERS = 30_000
_STATUSES = range(6)
"""Of pytest: any other one is of a process that was lost."""
_IN_PASSING = re.compile(r"(?P<name>\S+::.+) (?P<outcome>FAILED|ERROR) +\[ *\d+%\]$")
_IN_SUMMARY = re.compile(r"(?:FAILED|ERROR) (?P<name>.+?)(?: - .*)?$")


class Suite(NamedTuple):
    """Files of tests that run in one process."""

    name: str
    files: Sequence[str]
    environment: Mapping[str, str]


def suites() -> list[Suite]:
    """Hard caps have a process of their own, with segments that can expand; so have Triton's programs."""
    plain = plain_environment()
    files = test_files()
    of_triton = [file for file in files if _TRITON in (ROOT / file).read_text(encoding="utf-8")]
    return [
        Suite("usual", [file for file in files if file not in of_triton], plain),
        Suite("Triton", of_triton, plain),
        Suite("expandable segments", [CAPPED_TESTS], expandable_environment(plain)),
    ]


def test_files() -> list[str]:
    """Files with `gpu` tests, hard caps apart, the budgets' first: others may import packages that this
    machine does not have.
    """
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    marked = (path for path in files if any(mark in path.read_text(encoding="utf-8") for mark in _MARKS))
    found = {str(path.relative_to(ROOT)) for path in marked} - {CAPPED_TESTS}
    return sorted(found, key=lambda file: (file != FIRST_TESTS, file))


def pytest_command(*options: str) -> list[str]:
    """The suite's `gpu` tests, by name as they end; an image's own warnings are no failures."""
    usual = ("-m", "gpu", "-v", "--tb=short", "-W", "default", "--no-header", "-p", "no:cacheprovider")
    telling = ("-p", "benchmarks.gpu.telling", "-o", "faulthandler_timeout=60")
    return [sys.executable, "-m", "pytest", *usual, *telling, *options]


def plain_environment() -> dict[str, str]:
    """Of the tests: cuDNN's recurrent layers give the same bits twice with cuBLAS's workspace fixed."""
    return {**os.environ, "CUBLAS_WORKSPACE_CONFIG": ":4096:2"}


def expandable_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The same with segments that can expand, for hard caps and for peaks that do not depend on history."""
    return {**environment, **expandable_segments(environment)}


def run_suites(chosen: Sequence[Suite], until: float) -> dict[str, Any]:
    """All at once, until then of the monotonic clock: exit status (None when one was stopped, else the first
    that is not 0), what pytest said last of each, failures.
    """
    running = [Running(pytest_command(*suite.files), suite.environment) for suite in chosen]
    done = [each.ended(until) for each in running]
    for suite, each in zip(chosen, done, strict=True):
        print(f"tests, {suite.name}:\n{each['output'][-_SHOWN_CHARACTERS:]}", flush=True)
    statuses = [each["exit_status"] for each in done]
    return {
        "exit_status": next((status for status in statuses if status != 0), 0),
        "summary": "; ".join(
            f"{suite.name}: {each['summary']}" for suite, each in zip(chosen, done, strict=True)
        ),
        "failures": [failure for each in done for failure in failures_among(each["output"].splitlines())],
    }


def failures_among(lines: Sequence[str]) -> list[str]:
    """Tests that failed, each once, with as much of the reason as was told: pytest's summary may cut it off,
    and a run that was ended has none.
    """
    found: dict[str, str] = {}
    for line in lines:
        if passing := _IN_PASSING.match(line):
            found[passing["name"]] = f"{passing['outcome']} {passing['name']}"
        elif told := _IN_SUMMARY.match(line):
            found[told["name"]] = max(found.get(told["name"], ""), line, key=len)
    return list(found.values())


def end(process: subprocess.Popen[Any]) -> None:
    """At once; one that the driver of a lost device holds on to is left to it: nobody waits for it."""
    process.kill()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=GRACE_SECONDS)


class Running:
    """A process of tests. What it says goes to a file: nobody reads along."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        # Plugins that happen to be installed there are none of ours, and their warnings would be errors.
        # A summary of 80 columns leaves the reasons out.
        alone = {**environment, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "COLUMNS": "160"}
        self._begin = time.monotonic()
        self._said: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        with _sigint_heard():
            self._process = subprocess.Popen(
                list(command), cwd=ROOT, env=alone, stdout=self._said, stderr=subprocess.STDOUT
            )

    def ended(self, until: float) -> dict[str, Any]:
        """Exit status (None when it was stopped), what it said, and the last line of that. Asked to stop
        when its time is over, so that what failed is told; ended soon after.
        """
        status = self._status_within(until - time.monotonic())
        seconds = time.monotonic() - self._begin
        if status is None:
            self._process.send_signal(signal.SIGINT)
            if self._status_within(GRACE_SECONDS) is None:
                end(self._process)
        with self._said:
            self._said.seek(0)
            output = self._said.read()
        last = (output.strip().splitlines() or ["no output"])[-1].strip(" =")
        if status is None:
            last = f"stopped after {seconds:.0f} s"
        elif status not in _STATUSES:
            last = f"its process ended with {status} at {last}"
        return {"exit_status": status, "output": output, "summary": last}

    def _status_within(self, seconds: float) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout=max(seconds, 0.0))
        return None


@contextmanager
def _sigint_heard() -> Iterator[None]:
    """What is started within the context hears it, whatever this process does. A shell's background jobs are
    started deaf to it, and so would be all that they start.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)
