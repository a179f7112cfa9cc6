"""Tests marked `gpu` and the rows that need a CUDA device; writes one result file and a page from it.

Needs only torch, numpy, numba and pytest beside this checkout; Triton's kernels are measured where it is
installed. Ends within eight minutes: every section has an end, every row a limit, each in a process of its
own, and what was measured is kept whenever a row has more.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch

from benchmarks.arguments import without_arguments
from benchmarks.gpu import results
from benchmarks.gpu.page import page
from benchmarks.gpu.promises import broken_promises
from benchmarks.machine import ROOT, description
from executor.memory.cuda_memory import expandable_segments

TESTS_END = 170.0
"""Seconds after the beginning by which the tests are ended."""
CAPPED_TESTS_END = 205.0
"""When those that need expandable segments are: hard caps, and blocks that are cut to size."""
SECTIONS = (("budgets", 350.0), ("reversible", 400.0), ("sparse", 460.0))
"""When each ends, at the latest; what one leaves over is the next one's."""
GRACE_SECONDS = 3.0
"""Between the time when a section's rows stop by themselves and that when its process is ended; and between
asking tests for what they have found so far and ending them."""
CAPPED_TESTS = "tests/executor/test_gpu_caps.py"
FIRST_TESTS = "tests/executor/test_gpu.py"
PAGE = ROOT / "docs/gpu.md"
_MARKS = ("pytest.mark." + "gpu", "triton_devices")
_SHOWN_CHARACTERS = 30_000
_IN_PASSING = re.compile(r"(?P<name>\S+::.+) (?P<outcome>FAILED|ERROR) +\[ *\d+%\]$")
_IN_SUMMARY = re.compile(r"(?:FAILED|ERROR) (?P<name>.+?)(?: - .*)?$")


def test_files() -> list[str]:
    """Files with `gpu` tests, the budgets' first: others may import packages that this machine does not have.
    Hard caps have a process of their own.
    """
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    marked = (path for path in files if any(mark in path.read_text(encoding="utf-8") for mark in _MARKS))
    found = {str(path.relative_to(ROOT)) for path in marked} - {CAPPED_TESTS}
    return sorted(found, key=lambda file: (file != FIRST_TESTS, file))


def pytest_command(*options: str) -> list[str]:
    """The suite's `gpu` tests, by name as they end; an image's own warnings are no failures."""
    usual = ("-m", "gpu", "-v", "--tb=short", "-W", "default", "--no-header", "-p", "no:cacheprovider")
    return [sys.executable, "-m", "pytest", *usual, "-o", "faulthandler_timeout=60", *options]


def run_tests(files: list[str], seconds: float, environment: Mapping[str, str]) -> dict[str, Any]:
    """Tests in a process of their own: exit status (None when they were stopped), last line, failures."""
    done = _run(pytest_command(*files), seconds, environment)
    print(done["output"][-_SHOWN_CHARACTERS:], flush=True)
    lines = done["output"].strip().splitlines() or ["no output"]
    summary = lines[-1] if done["exit_status"] is not None else f"stopped after {seconds:.0f} s"
    return {"exit_status": done["exit_status"], "summary": summary, "failures": failures_among(lines)}


def failures_among(lines: list[str]) -> list[str]:
    """Tests that failed, each once: as pytest's summary tells them, or as they went where a run was ended."""
    found: dict[str, str] = {}
    for line in lines:
        if passing := _IN_PASSING.match(line):
            found[passing["name"]] = f"{passing['outcome']} {passing['name']}"
        elif summed_up := _IN_SUMMARY.match(line):
            found[summed_up["name"]] = line
    return list(found.values())


def joined(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Two processes' tests as one record; a status other than 0 stays."""
    statuses = (first["exit_status"], second["exit_status"])
    usual, expandable = (each["summary"].strip(" =") for each in (first, second))
    return {
        "exit_status": statuses[1] if statuses[0] == 0 else statuses[0],
        "summary": f"{usual}; with expandable segments {expandable}",
        "failures": [*first["failures"], *second["failures"]],
    }


def _run(command: list[str], seconds: float, environment: Mapping[str, str]) -> dict[str, Any]:
    """Asked to stop when its time is over, so that what failed is told; ended soon after."""
    # Plugins that happen to be installed there are none of ours, and their warnings would be errors.
    # A summary of 80 columns leaves the reasons out.
    alone = {**environment, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "COLUMNS": "160"}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=alone,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=_hear_sigint,  # noqa: PLW1509 - there are no threads here
    )
    with suppress(subprocess.TimeoutExpired):
        output, _ = process.communicate(timeout=max(seconds, 0.0))
        return {"exit_status": process.returncode, "output": output}
    process.send_signal(signal.SIGINT)
    try:
        output, _ = process.communicate(timeout=GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
    return {"exit_status": None, "output": output}


def _hear_sigint() -> None:
    """A shell's background jobs are started deaf to it, and so would be all that they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def plain_environment() -> dict[str, str]:
    """Of the tests: cuDNN's recurrent layers give the same bits twice with cuBLAS's workspace fixed."""
    return {**os.environ, "CUBLAS_WORKSPACE_CONFIG": ":4096:2"}


def expandable_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The same with segments that can expand, for hard caps and for peaks that do not depend on history."""
    return {**environment, **expandable_segments(environment)}


def run_section(name: str, until: float) -> None:
    """Measure a section's rows until then; nothing is raised, whatever becomes of its process."""
    seconds = max(0.0, until - time.monotonic())
    command = [sys.executable, "-m", "benchmarks.gpu.section", name, "--until", f"{until:.3f}"]
    environment = expandable_environment(os.environ)
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, timeout=seconds + GRACE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        results.add(name, {"name": name, "stopped": f"the section's process was ended after {seconds:.0f} s"})
    else:
        if done.returncode:
            results.add(name, {"name": name, "failed": f"the section's process ended with {done.returncode}"})


def device_description() -> dict[str, object]:
    """Name, memory, driver and CUDA runtime of the device, beside the machine's description."""
    properties = torch.cuda.get_device_properties(0)
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        driver = "unknown"
    return {
        **description("torch", "numpy", "numba", "triton"),
        "device": properties.name,
        "device_bytes": properties.total_memory,
        "driver": driver,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def collect() -> int:
    """Without a device: say so, and that the tests could be collected; 2, or 1 when they cannot be."""
    print("no CUDA device: nothing was measured", file=sys.stderr)
    done = _run(pytest_command("--collect-only", "-q", *test_files(), CAPPED_TESTS), TESTS_END, os.environ)
    lines = done["output"].strip().splitlines() or ["no output"]
    print(lines[-1] if done["exit_status"] == 0 else done["output"])
    return 2 if done["exit_status"] == 0 else 1


def main() -> int:
    """Run all; write benchmarks/results/gpu.json and docs/gpu.md from it; 1 when a promise was broken."""
    if not torch.cuda.is_available():
        return collect()
    begin = time.monotonic()
    results.start({"machine": device_description()})
    tests = all_tests(begin)
    results.start({**results.load(), "tests": tests})
    for name, end in SECTIONS:
        run_section(name, begin + end)
        _write_page()
    found = results.load()
    print(page(found))
    for promise in broken_promises(found):
        print(f"broken: {promise}", file=sys.stderr)
    print(f"results: {results.PATH.relative_to(ROOT)}, {PAGE.relative_to(ROOT)}", flush=True)
    return 1 if broken_promises(found) else 0


def all_tests(begin: float) -> dict[str, Any]:
    """Those of the allocator as it comes, then those with expandable segments."""
    plain = plain_environment()
    usual = run_tests(test_files(), begin + TESTS_END - time.monotonic(), plain)
    seconds = begin + CAPPED_TESTS_END - time.monotonic()
    return joined(usual, run_tests([CAPPED_TESTS], seconds, expandable_environment(plain)))


def _write_page() -> None:
    PAGE.write_text(page(results.load()), encoding="utf-8")


if __name__ == "__main__":
    without_arguments(__doc__)
    raise SystemExit(main())
