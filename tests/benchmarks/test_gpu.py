"""`make gpu` runs on an image with torch, numpy, numba and pytest, and nothing of the service."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import running, suites
from benchmarks.gpu.suites import test_files as files_with_gpu_tests

ROOT = Path(__file__).parents[2]
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="without Triton its tests are no suite")

HIDING = """
import sys

ABSENT = {
    "alembic", "anyio", "fastapi", "httpcore", "httpx", "hypothesis", "matplotlib", "prometheus_client",
    "pydantic", "pydantic_core", "sqlalchemy", "starlette", "uvicorn", "yaml",
}


def hiding(finder):
    class Hiding:
        @staticmethod
        def find_spec(name, path=None, target=None):
            return None if name.partition(".")[0] in ABSENT else finder.find_spec(name, path, target)

    return Hiding()


sys.meta_path[:] = [hiding(finder) for finder in sys.meta_path]
sys.path.insert(0, ".")
"""

PLANNING = """
import json
import pathlib
import tempfile
import torch
import benchmarks.gpu.__main__
import benchmarks.gpu.section
from executor import predict, unroll

cell = torch.nn.GRUCell(8, 8)
loop = [lambda s, x: (cell(x, s), None), torch.zeros(1, 8), torch.randn(50, 1, 8)]
unroll(*loop, module=cell, budget="1MB", host_budget="10kB")[1].sum().backward()
print("planned", cell.weight_hh.grad is not None)

from executor.cli import main

job = json.loads(pathlib.Path("examples/jobs/small.json").read_text())
with tempfile.TemporaryDirectory() as folder:
    job["report"] = {"output": folder + "/report.json", "gradient_check_steps": 4}
    path = pathlib.Path(folder, "job.json")
    path.write_text(json.dumps(job))
    print("worked", main(["run", str(path)]))
"""

COLLECTING = """
import pytest
from benchmarks.gpu import running, suites

files = [*suites.test_files(), suites.CAPPED_TESTS]
sys.exit(pytest.main(["-m", "gpu", "-q", "-p", "no:cacheprovider", "--collect-only", *files]))
"""


def on_a_bare_image(code: str) -> subprocess.CompletedProcess[str]:
    # Plugins announce themselves by their metadata, which would be absent too.
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", HIDING + code]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_planning_and_the_benchmark_import_need_nothing_of_the_service() -> None:
    """A plan with host memory is made and run; a worker runs a job without asking a service."""
    done = on_a_bare_image(PLANNING)
    lines = done.stdout.splitlines() or [""]
    assert (lines[0], lines[-1]) == ("planned True", "worked 0"), done.stderr[-2000:]


@needs_triton
def test_every_gpu_test_can_be_collected() -> None:
    """Collection succeeds, and finds the tests of every file that has some."""
    done = on_a_bare_image(COLLECTING)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert all(file in done.stdout for file in files_with_gpu_tests())
    assert suites.CAPPED_TESTS in done.stdout
    assert "tests/executor/sparse/test_triton_products.py" in files_with_gpu_tests()
    assert suites.CAPPED_TESTS not in files_with_gpu_tests()
    assert files_with_gpu_tests()[0] == "tests/executor/test_gpu.py"


@needs_triton
def test_every_file_is_in_one_suite() -> None:
    """Hard caps alone have segments that can expand; what Triton's compiler takes keeps nobody waiting"""
    usual, capped, triton = suites.suites()
    assert sorted([*usual.files, *triton.files]) == sorted(files_with_gpu_tests())
    assert usual.files[0] == suites.FIRST_TESTS
    assert "tests/executor/reversible/test_triton_kernels.py" in triton.files
    assert capped.files == [suites.CAPPED_TESTS]
    for suite in (usual, triton, capped):
        assert suite.environment["CUBLAS_WORKSPACE_CONFIG"] == ":4096:2"
        assert ("expandable_segments:True" in suite.environment.values()) == (suite is capped)


def test_without_a_device_it_says_so_and_counts_the_tests(tmp_path: Path) -> None:
    """The command itself, and what it starts, on the bare image; exit status 2: nothing was measured."""
    (tmp_path / "sitecustomize.py").write_text(HIDING, encoding="utf-8")
    hidden = {"PYTHONPATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.gpu"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | hidden, capture_output=True, text=True)
    assert done.returncode == 2, done.stdout[-2000:] + done.stderr[-2000:]
    assert "no CUDA device: nothing was measured" in done.stderr
    assert "tests collected" in done.stdout


@pytest.mark.parametrize(
    ("status", "said", "version"),
    [(0, "580.1\n580.1\n", "580.1"), (9, "NVIDIA-SMI has failed\n", "unknown"), (0, "", "unknown")],
)
def test_the_driver_is_one_word_of_the_page(
    status: int, said: str, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several devices, and where nvidia-smi is there and finds none"""
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '{said}'\nexit {status}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert gpu.driver_version() == version


def test_everything_ends_within_eight_minutes() -> None:
    """Tests, then sections, each with an end of its own; three quarters of a minute for what is loaded"""
    ends = [gpu.TESTS_END, *(end for _, end in gpu.SECTIONS)]
    assert ends == sorted(ends)
    assert ends[-1] + running.GRACE_SECONDS + gpu.GRACE_SECONDS <= 435


def ended(status: int | None, timeout: float) -> int:
    """What waiting for a process gives; None for one that neither ends nor can be ended."""
    if status is None:
        raise subprocess.TimeoutExpired("a section", timeout)
    return status


class Ended:
    """The processes of a section, one after the other: the rows that each begins, and how it ends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *ends: tuple[list[str], int | None]) -> None:
        self.commands: list[list[str]] = []
        self.are_expandable: list[bool] = []
        self.rows: list[dict[str, object]] = []
        self._ends = iter(ends)
        monkeypatch.setattr(gpu.subprocess, "Popen", self._started)
        monkeypatch.setattr(gpu.time, "monotonic", lambda: 1000.0)
        monkeypatch.setattr(gpu.results, "add", lambda _section, row: self.rows.append(row))
        monkeypatch.setattr(gpu.results, "names", lambda _section: {row["name"] for row in self.rows})

    def _started(self, command: list[str], **options: Any) -> SimpleNamespace:
        self.commands.append(command)
        self.are_expandable.append("expandable_segments:True" in options["env"].values())
        begun, status = next(self._ends)
        self.rows += [{"name": name} for name in begun]
        return SimpleNamespace(wait=partial(ended, status), kill=lambda: None)

    @property
    def told(self) -> list[dict[str, object]]:
        """What was recorded of processes."""
        return [row for row in self.rows if len(row) > 1]


def test_a_section_that_ends_well_or_late_runs_once(monkeypatch) -> None:
    """Its process is told when to end by the clock that it shares: what it takes to start is its own. One
    that the driver of a lost device does not let end is left behind
    """
    well = Ended(monkeypatch, (["one"], 0))
    gpu.run_section("sparse", 1009.0)
    assert well.commands[0][-3:] == ["sparse", "--until", "1009.000"]
    assert well.told == []
    late = Ended(monkeypatch, (["one"], None))
    gpu.run_section("sparse", 1009.0)
    assert late.told == [{"name": "sparse", "stopped": "the section's process was ended after 9 s"}]


def test_the_rows_after_one_that_lost_the_device_are_measured_by_another_process(monkeypatch) -> None:
    """And none is begun where no time is left for it"""
    lost = Ended(monkeypatch, (["one", "two"], -11), (["three"], 0))
    gpu.run_section("sparse", 1100.0)
    assert lost.told == [{"name": "sparse, process 1", "failed": "the section's process ended with -11"}]
    assert lost.are_expandable == [True, True]
    late = Ended(monkeypatch, (["one"], 1))
    gpu.run_section("sparse", 1005.0)
    assert len(late.commands) == 1


def test_where_segments_cannot_expand_rows_are_measured_with_those_that_do_not(monkeypatch) -> None:
    """A virtual machine may refuse the driver's calls for them; where nothing helps, that is told"""
    refused = Ended(monkeypatch, ([], 1), (["one"], 0))
    gpu.run_section("sparse", 1100.0)
    assert refused.are_expandable == [True, False]
    (row,) = refused.told
    assert str(row["failed"]).endswith("before it began a row: the next one has segments that do not expand")
    broken = Ended(monkeypatch, ([], 1), ([], 1))
    gpu.run_section("sparse", 1100.0)
    assert [str(row["failed"]).endswith("before it began a row") for row in broken.told] == [False, True]
