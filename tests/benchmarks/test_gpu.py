"""`make gpu` runs on an image with torch, numpy, numba and pytest, and nothing of the service."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu.__main__ import test_files as files_with_gpu_tests

ROOT = Path(__file__).parents[2]

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
import torch
import benchmarks.gpu.__main__
import benchmarks.gpu.section
from executor import predict, unroll

cell = torch.nn.GRUCell(8, 8)
loop = [lambda s, x: (cell(x, s), None), torch.zeros(1, 8), torch.randn(50, 1, 8)]
unroll(*loop, module=cell, budget="1MB", host_budget="10kB")[1].sum().backward()
print("planned", cell.weight_hh.grad is not None)
"""

COLLECTING = """
import pytest
import benchmarks.gpu.__main__ as gpu

files = [*gpu.test_files(), gpu.CAPPED_TESTS]
sys.exit(pytest.main(["-m", "gpu", "-q", "-p", "no:cacheprovider", "--collect-only", *files]))
"""


def on_a_bare_image(code: str) -> subprocess.CompletedProcess[str]:
    # Plugins announce themselves by their metadata, which would be absent too.
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", HIDING + code]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_planning_and_the_benchmark_import_need_nothing_of_the_service() -> None:
    """A plan with host memory is made and run."""
    done = on_a_bare_image(PLANNING)
    assert done.stdout.strip() == "planned True", done.stderr[-2000:]


def test_every_gpu_test_can_be_collected() -> None:
    """Collection succeeds, and finds the tests of every file that has some."""
    done = on_a_bare_image(COLLECTING)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert all(file in done.stdout for file in files_with_gpu_tests())
    assert gpu.CAPPED_TESTS in done.stdout
    assert "tests/executor/sparse/test_triton_products.py" in files_with_gpu_tests()
    assert gpu.CAPPED_TESTS not in files_with_gpu_tests()
    assert files_with_gpu_tests()[0] == "tests/executor/test_gpu.py"


def test_without_a_device_it_says_so_and_counts_the_tests(tmp_path: Path) -> None:
    """The command itself, and what it starts, on the bare image; exit status 2: nothing was measured."""
    (tmp_path / "sitecustomize.py").write_text(HIDING, encoding="utf-8")
    hidden = {"PYTHONPATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.gpu"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | hidden, capture_output=True, text=True)
    assert done.returncode == 2, done.stdout[-2000:] + done.stderr[-2000:]
    assert "no CUDA device: nothing was measured" in done.stderr
    assert "tests collected" in done.stdout


def test_everything_ends_within_eight_minutes() -> None:
    """Tests, then sections, each with an end of its own"""
    ends = [gpu.TESTS_END, gpu.CAPPED_TESTS_END, *(end for _, end in gpu.SECTIONS)]
    assert ends == sorted(ends)
    assert ends[-1] + 4 * gpu.GRACE_SECONDS <= 480


SLOW_TESTS = """
import time
import pytest

gpu = getattr(pytest.mark, "gpu")

@gpu
@pytest.mark.parametrize("rule", [{"a": 1}], ids=str)
def test_that_fails(rule):
    import warnings
    warnings.warn("an image's own")
    assert rule == 2, "not two"

@gpu
def test_that_passes():
    pass

@gpu
def test_that_hangs():
    time.sleep(600)
"""


@pytest.fixture
def slow_tests(tmp_path: Path) -> str:
    """A file with a test that fails, one that passes, and one that never ends."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\nmarkers = gpu", encoding="utf-8")
    (tmp_path / "test_slow.py").write_text(SLOW_TESTS, encoding="utf-8")
    return str(tmp_path / "test_slow.py")


def test_tests_that_are_ended_still_tell_what_failed(
    slow_tests: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name, with what was wrong, from a background job, too; warnings of an image are no errors"""
    monkeypatch.setattr(gpu, "GRACE_SECONDS", 30.0)  # they end at once, but not where others keep the cores
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        done = gpu.run_tests([slow_tests], 6.0, os.environ)
    finally:
        signal.signal(signal.SIGINT, before)
    assert done["exit_status"] is None
    assert done["summary"] == "stopped after 6 s"
    (failure,) = done["failures"]
    assert "test_that_fails[{'a': 1}]" in failure
    assert "not two" in failure


def test_failures_are_read_from_a_run_that_was_cut_off() -> None:
    """Without a summary the lines of the tests themselves tell them; with one, each is told once"""
    passing = [
        "tests/a.py::test_one[{'x': 1}] FAILED                                [ 50%]",
        "tests/a.py::test_two PASSED                                          [ 75%]",
        "tests/a.py::test_three ERROR                                         [100%]",
        "an ERROR that a test printed",
    ]
    assert gpu.failures_among(passing) == [
        "FAILED tests/a.py::test_one[{'x': 1}]",
        "ERROR tests/a.py::test_three",
    ]
    summary = ["FAILED tests/a.py::test_one[{'x': 1}] - assert 1 == 2", "ERROR tests/a.py::test_three"]
    assert gpu.failures_among(passing + summary) == summary


def test_two_processes_of_tests_are_one_record() -> None:
    """The first that failed decides the status"""
    good = {"exit_status": 0, "summary": "== 3 passed in 2 s ==", "failures": []}
    stopped = {"exit_status": None, "summary": "stopped after 9 s", "failures": ["FAILED a"]}
    assert gpu.joined(good, good)["exit_status"] == 0
    both = gpu.joined(good, stopped)
    assert both["exit_status"] is None
    assert both["summary"] == "3 passed in 2 s; with expandable segments stopped after 9 s"
    assert both["failures"] == ["FAILED a"]


def test_capped_tests_and_rows_have_expandable_segments() -> None:
    """And the tests of all the rest the allocator as it comes"""
    plain = gpu.plain_environment()
    assert plain["CUBLAS_WORKSPACE_CONFIG"] == ":4096:2"
    assert "expandable_segments:True" in gpu.expandable_environment(plain).values()
    assert "expandable_segments:True" not in plain.values()


@pytest.mark.parametrize(
    ("done", "left"),
    [
        (subprocess.CompletedProcess([], 0), []),
        (subprocess.CompletedProcess([], -11), [{"failed": "the section's process ended with -11"}]),
        (subprocess.TimeoutExpired([], 9.0), [{"stopped": "the section's process was ended after 9 s"}]),
    ],
)
def test_whatever_becomes_of_a_section_is_recorded(monkeypatch, done, left) -> None:
    """Its process is told when to end by the clock that it shares: what it takes to start is its own"""
    asked: list[list[str]] = []

    def run(command: list[str], **_options: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        if isinstance(done, Exception):
            raise done
        return done

    added: list[dict[str, object]] = []
    monkeypatch.setattr(gpu.subprocess, "run", run)
    monkeypatch.setattr(gpu.time, "monotonic", lambda: 1000.0)
    monkeypatch.setattr(gpu.results, "add", lambda _section, row: added.append(row))
    gpu.run_section("sparse", 1009.0)
    assert asked[0][-3:] == ["sparse", "--until", "1009.000"]
    assert added == [{"name": "sparse", **each} for each in left]
