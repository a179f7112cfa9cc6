"""Tests marked `gpu` and the rows that need a CUDA device; writes one result file and a page from it.

Needs only torch, numpy, numba and pytest beside this checkout; Triton's kernels are measured where it is
installed. Ends within eight minutes: every section has an end, every row a limit, each in a process of its
own, and what was measured is kept row by row.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

import torch

from benchmarks.gpu import results
from benchmarks.gpu.page import page
from benchmarks.gpu.promises import broken_promises
from benchmarks.machine import ROOT, description

TESTS_END = 150.0
"""Seconds after the beginning by which the tests are ended."""
SECTIONS = (("budgets", 320.0), ("reversible", 385.0), ("sparse", 460.0))
"""When each ends, at the latest; what one leaves over is the next one's."""
GRACE_SECONDS = 3.0
"""Between the time when a section's rows stop by themselves and that when its process is ended."""
_MARK = "pytest.mark." + "gpu"


def test_files() -> list[str]:
    """Files with `gpu` tests: others may import packages that this machine does not have."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(path.relative_to(ROOT)) for path in files if _MARK in path.read_text(encoding="utf-8")]


def pytest_command(*options: str) -> list[str]:
    """The suite's `gpu` tests."""
    return [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "gpu",
        "-q",
        "-p",
        "no:cacheprovider",
        *options,
        *test_files(),
    ]


def run_tests(seconds: float) -> dict[str, Any]:
    """The tests in a process of their own: exit status (None when they were stopped), last line, failures."""
    done = _run(pytest_command("--tb=short"), seconds)
    print(done["output"][-6_000:], flush=True)
    lines = done["output"].strip().splitlines() or ["no output"]
    failures = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    summary = lines[-1] if done["exit_status"] is not None else f"stopped after {seconds:.0f} s"
    return {"exit_status": done["exit_status"], "summary": summary, "failures": failures}


def _run(command: list[str], seconds: float) -> dict[str, Any]:
    # Plugins that happen to be installed there are none of ours, and their warnings would be errors.
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        output, _ = process.communicate(timeout=seconds)
        return {"exit_status": process.returncode, "output": output}
    except subprocess.TimeoutExpired:
        process.kill()
        return {"exit_status": None, "output": process.communicate()[0]}


def run_section(name: str, seconds: float) -> None:
    """Measure a section's rows; nothing is raised, whatever becomes of its process."""
    command = [sys.executable, "-m", "benchmarks.gpu.section", name, "--seconds", f"{seconds:.0f}"]
    try:
        subprocess.run(command, cwd=ROOT, timeout=seconds + GRACE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        results.add(name, {"name": name, "stopped": f"the section's process was ended after {seconds:.0f} s"})


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
    done = _run(pytest_command("--collect-only"), TESTS_END)
    lines = done["output"].strip().splitlines() or ["no output"]
    print(lines[-1] if done["exit_status"] == 0 else done["output"])
    return 2 if done["exit_status"] == 0 else 1


def main() -> int:
    """Run all; write benchmarks/results/gpu.json and docs/gpu.md from it; 1 when a promise was broken."""
    if not torch.cuda.is_available():
        return collect()
    begin = time.monotonic()
    results.start({"machine": device_description()})
    tests = run_tests(TESTS_END)
    results.start({**results.load(), "tests": tests})
    for name, end in SECTIONS:
        run_section(name, begin + end - time.monotonic())
        _write_page()
    found = results.load()
    print(page(found))
    for promise in broken_promises(found):
        print(f"broken: {promise}", file=sys.stderr)
    return 1 if broken_promises(found) else 0


def _write_page() -> None:
    (ROOT / "docs/gpu.md").write_text(page(results.load()), encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
