"""Tests marked `gpu` and the executor's rows on a CUDA device; writes one result file.

Needs only torch, numpy, numba and pytest beside this checkout, and stops before eight minutes are over:
cases that no longer fit into the time are named in the file as not measured.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from benchmarks.executor.__main__ import measured
from benchmarks.executor.cases import Case, fused
from benchmarks.gpu.page import page
from benchmarks.machine import RESULTS, ROOT, description
from benchmarks.sparse.frontier import gpu_rows

LIMIT_SECONDS = 450.0
SHARES = (0.05, 0.02, 0.01)
_MARK = "pytest.mark." + "gpu"


def cases() -> Iterator[tuple[str, partial[Case]]]:
    """The rows of the CPU table, then the sizes that fill a device, cheapest first."""
    for hidden, batch, steps in ((256, 64, 1_000), (512, 64, 1_000), (1_024, 64, 1_000), (1_024, 64, 10_000)):
        for kind in ("lstm", "gru"):
            name = f"{kind}-{hidden}-{batch}-{steps}"
            yield name, partial(fused, kind, hidden=hidden, batch=batch, steps=steps, device="cuda")


def test_files() -> list[str]:
    """Files with `gpu` tests: others may import packages that this machine does not have."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(path.relative_to(ROOT)) for path in files if _MARK in path.read_text(encoding="utf-8")]


def run_tests(timeout_seconds: float) -> dict[str, Any]:
    """The suite's `gpu` tests in a process of their own: their exit status and last line."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", *test_files()]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return {"exit_status": None, "summary": f"stopped after {timeout_seconds:.0f} s"}
    print(done.stdout[-4_000:])
    lines = done.stdout.strip().splitlines()
    return {"exit_status": done.returncode, "summary": lines[-1] if lines else done.stderr[-500:]}


def run_cases(rounds: int, until: float) -> list[dict[str, Any]]:
    """Every case that can be begun before `until` (of the monotonic clock)."""
    results: list[dict[str, Any]] = []
    for name, make in cases():
        if time.monotonic() > until:
            results.append({"name": name, "not_measured": "out of time"})
            continue
        print(f"{name} …", flush=True)
        try:
            results.append(measured(make(), SHARES, rounds))
        except torch.cuda.OutOfMemoryError as error:
            results.append({"name": name, "not_measured": str(error).splitlines()[0]})
        torch.cuda.empty_cache()
    return results


def device_description() -> dict[str, object]:
    """Name, memory, driver and CUDA runtime of the device, beside the machine's description."""
    properties = torch.cuda.get_device_properties(0)
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    return {
        **description("torch", "numpy", "numba", "triton"),
        "device": properties.name,
        "device_bytes": properties.total_memory,
        "driver": driver,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def main() -> int:
    """Run all; write benchmarks/results/gpu.json and docs/gpu.md from it; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds (7)")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device: nothing was measured", file=sys.stderr)
        return 2
    begin = time.monotonic()
    tests = run_tests(LIMIT_SECONDS / 2)
    torch.manual_seed(0)
    results = run_cases(options.rounds, begin + LIMIT_SECONDS * 0.8)
    finished = [case for case in results if "rows" in case]
    sparse = list(gpu_rows(begin + LIMIT_SECONDS * 0.9))
    found = {
        "machine": device_description(),
        "rounds": options.rounds,
        "tests": tests,
        "cases": results,
        "sparse": sparse,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "gpu.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    text = page(found)
    (ROOT / "docs/gpu.md").write_text(text, encoding="utf-8")
    print(text)
    rows = [row for case in finished for row in case["rows"] if row["measured_peak_bytes"] is not None]
    kept = all(row["measured_peak_bytes"] <= row["budget_bytes"] for row in rows)
    return 0 if kept and rows and tests["exit_status"] == 0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
