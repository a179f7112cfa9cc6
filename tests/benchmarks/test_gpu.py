"""`make gpu` runs on an image with torch, numpy, numba and pytest, and nothing of the service."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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

sys.exit(pytest.main(["-m", "gpu", "-q", "-p", "no:cacheprovider", "--collect-only", *gpu.test_files()]))
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
    assert "tests/executor/test_gpu.py" in files_with_gpu_tests()


def test_without_a_device_it_says_so_and_counts_the_tests(tmp_path: Path) -> None:
    """The command itself, and what it starts, on the bare image; exit status 2: nothing was measured."""
    (tmp_path / "sitecustomize.py").write_text(HIDING, encoding="utf-8")
    hidden = {"PYTHONPATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.gpu"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | hidden, capture_output=True, text=True)
    assert done.returncode == 2, done.stdout[-2000:] + done.stderr[-2000:]
    assert "no CUDA device: nothing was measured" in done.stderr
    assert "tests collected" in done.stdout
