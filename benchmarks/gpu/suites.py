"""The suite's tests marked `gpu`: which files have some, and how they are run beside one another.

Peaks are counted per process and no test looks at a clock, so that several processes may share the device:
one that is lost with it takes only its own tests along, and the compiler of Triton's programs, which works on
one core, is not waited for by the others.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

from benchmarks.gpu.running import Running
from benchmarks.gpu.said import failures_among, so_far
from benchmarks.machine import ROOT
from executor.memory.cuda_memory import expandable_segments

CAPPED_TESTS = "tests/executor/test_gpu_caps.py"
FIRST_TESTS = "tests/executor/test_gpu.py"
_TRITON = "triton_devices"
"""Imported by the tests of Triton's programs."""
_MARKS = ("pytest.mark." + "gpu", _TRITON)
_SHOWN_CHARACTERS = 30_000
_LOOK_SECONDS = 0.5
"""Between two looks at what tests that go on have said."""
_NOT_BEGUN = {"exit_status": None, "output": "", "summary": "not begun"}


Tests = dict[str, Any]
"""What is known of tests, as the result file has it."""


class Suite(NamedTuple):
    """Files of tests that run in one process."""

    name: str
    files: Sequence[str]
    environment: Mapping[str, str]


def suites() -> list[Suite]:
    """Hard caps have a process of their own, with segments that can expand; so have Triton's programs, where
    there is Triton. First the one that matters most.
    """
    plain = plain_environment()
    files = test_files()
    of_triton = [file for file in files if _TRITON in (ROOT / file).read_text(encoding="utf-8")]
    found = [
        Suite("usual", [file for file in files if file not in of_triton], plain),
        Suite("expandable segments", [CAPPED_TESTS], expandable_environment(plain)),
    ]
    return [*found, Suite("Triton", of_triton, plain)] if find_spec("triton") else found


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


def run_suites(
    chosen: Sequence[Suite], until: float, *, keep: Callable[[Tests], None], at_once: bool = True
) -> Tests:
    """Until then of the monotonic clock, side by side or one after the other. `keep` gets the same record
    while they run, whenever more is known: this process, too, may be ended at any moment.
    """
    known: dict[str, Tests] = {suite.name: _NOT_BEGUN for suite in chosen}
    for group in [chosen] if at_once else [[suite] for suite in chosen]:
        if time.monotonic() >= until:
            break
        running = {suite.name: Running(pytest_command(*suite.files), suite.environment) for suite in group}
        while time.monotonic() < until and any(each.goes_on for each in running.values()):
            told = {name: told_by_now(each) for name, each in running.items()}
            if known != known | told:
                known |= told
                keep(joined(known))
            time.sleep(min(_LOOK_SECONDS, max(0.0, until - time.monotonic())))
        known |= {name: each.ended(until) for name, each in running.items()}
        keep(joined(known))
        for name in running:
            print(f"tests, {name}:\n{known[name]['output'][-_SHOWN_CHARACTERS:]}", flush=True)
    return joined(known)


def told_by_now(running: Running) -> Tests:
    """Of a process that nobody has waited for yet."""
    output = running.said()
    return {"exit_status": None, "output": output, "summary": so_far(output.splitlines())}


def joined(known: Mapping[str, Tests]) -> Tests:
    """Of all suites: exit status (the first that is not 0; None of one that was stopped or has not ended),
    what pytest said last of each, failures.
    """
    statuses = [each["exit_status"] for each in known.values()]
    outputs = [each["output"].splitlines() for each in known.values()]
    return {
        "exit_status": next((status for status in statuses if status != 0), 0),
        "summary": "; ".join(f"{name}: {each['summary']}" for name, each in known.items()),
        "failures": [failure for lines in outputs for failure in failures_among(lines)],
    }
