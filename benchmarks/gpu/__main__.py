"""Tests marked `gpu` and the rows that need a CUDA device; writes one result file and a page from it.

Needs only torch, numpy, numba and pytest beside this checkout; Triton's kernels are measured where it is
installed. Ends within eight minutes: every section has an end, every row a limit, each in a process of its
own, and what was measured is kept whenever a row has more: in this checkout, or in the folder that the
variable GPU_RESULTS names.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

import torch

from benchmarks.arguments import without_arguments
from benchmarks.gpu import page, results, suites
from benchmarks.gpu.compute_mode import takes_one_process
from benchmarks.gpu.promises import broken_promises
from benchmarks.gpu.running import Running, end
from benchmarks.machine import ROOT, description

TESTS_END = 150.0
"""Seconds after the beginning by which the tests are ended."""
SECTIONS = (("budgets", 315.0), ("reversible", 360.0), ("sparse", 425.0))
"""When each ends, at the latest; what one leaves over is the next one's."""
GRACE_SECONDS = 3.0
"""Between the time when a section's rows stop by themselves and that when its process is ended."""
DRIVER_SECONDS = 15.0
"""For nvidia-smi, which waits for a driver that does not answer."""
LEAST_SECONDS = 10.0
"""With less left, no further process of a section is started."""


def run_section(name: str, until: float) -> None:
    """Measure a section's rows until then; nothing is raised, whatever becomes of its processes.

    A process that is lost, with the device or by itself, is followed by one for the rows that were not begun.
    One that is lost before it begins a row is followed by one whose segments do not expand: virtual machines
    may refuse them.
    """
    environments = [suites.expandable_environment(os.environ), dict(os.environ)]
    lost = 0
    while environments and until - time.monotonic() > (LEAST_SECONDS if lost else 0.0):
        begun = results.names(name)
        how = _end_of_process(name, until, environments[0])
        if how is None:
            return
        lost += 1
        if results.names(name) == begun:
            environments.pop(0)
            how["failed"] += ", before it began a row" + (
                ": the next one has segments that do not expand" if environments else ""
            )
        results.add(name, {"name": f"{name}, process {lost}", **how})


def _end_of_process(name: str, until: float, environment: dict[str, str]) -> dict[str, str] | None:
    """How it was lost; None where it was not, or its time was over."""
    seconds = max(0.0, until - time.monotonic())
    command = [sys.executable, "-m", "benchmarks.gpu.section", name, "--until", f"{until:.3f}"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    try:
        status = process.wait(timeout=seconds + GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        end(process)
        results.add(name, {"name": name, "stopped": f"the section's process was ended after {seconds:.0f} s"})
        return None
    return {"failed": f"the section's process ended with {status}"} if status else None


def device_description() -> dict[str, object]:
    """Name, memory, driver and CUDA runtime of the device, beside the machine's description."""
    properties = torch.cuda.get_device_properties(0)
    return {
        **description("torch", "numpy", "numba", "triton"),
        "device": properties.name,
        "device_bytes": properties.total_memory,
        "driver": driver_version(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def driver_version() -> str:
    """As nvidia-smi tells it, which has a line for every device, and on its standard output what failed."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, check=True, timeout=DRIVER_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return next(iter(told.stdout.splitlines()), "unknown").strip()


def collect() -> int:
    """Without a device: say so, and that the tests could be collected; 2, or 1 when they cannot be."""
    print("no CUDA device: nothing was measured", file=sys.stderr)
    command = suites.pytest_command("--collect-only", "-q", *suites.test_files(), suites.CAPPED_TESTS)
    done = Running(command, os.environ).ended(time.monotonic() + TESTS_END)
    print(done["summary"] if done["exit_status"] == 0 else done["output"])
    return 2 if done["exit_status"] == 0 else 1


def _keep_tests(about: dict[str, Any], tests: suites.Tests) -> None:
    results.start(about | {"tests": tests})
    page.try_to_write()


def main() -> int:
    """Run all; write benchmarks/results/gpu.json and docs/gpu.md from it; 1 when a promise was broken."""
    if not torch.cuda.is_available():
        return collect()
    begin = time.monotonic()
    about: dict[str, Any] = {"machine": device_description()}
    results.start(about)
    page.try_to_write()
    suites.run_suites(
        suites.suites(),
        begin + TESTS_END,
        keep=lambda tests: _keep_tests(about, tests),
        at_once=not takes_one_process(),
    )
    for name, seconds in SECTIONS:
        run_section(name, begin + seconds)
    is_written, found = page.try_to_write(), results.load()
    if is_written:
        print(page.PATH.read_text(encoding="utf-8"))
    for promise in broken_promises(found):
        print(f"broken: {promise}", file=sys.stderr)
    written = (os.path.relpath(path, ROOT) for path in (results.PATH, page.PATH))
    print(f"results: {', '.join(written)}", flush=True)
    return 1 if broken_promises(found) or not is_written else 0


if __name__ == "__main__":
    without_arguments(__doc__)
    raise SystemExit(main())
