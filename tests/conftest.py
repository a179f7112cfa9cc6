"""What every test shares: the report header, fixed seeds, hypothesis without deadlines."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

try:
    from hypothesis import HealthCheck, settings
except ModuleNotFoundError:  # a GPU image that runs only the `gpu` tests
    settings = None

pytest_plugins = ("tests.databases", "tests.serving")

# Two test processes with two threads each on two cores: threads that wait by spinning take the cores from
# those that they wait for, and small models train ten times as long. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# The suite must say the same thing twice: examples are derived from the test's name, not drawn anew.
# HYPOTHESIS_PROFILE=search looks for fresh ones, and for longer. No test fails for being slow.
if settings is not None:
    untimed: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
    settings.register_profile("repeatable", derandomize=True, max_examples=60, **untimed)
    settings.register_profile("search", max_examples=2_000, **untimed)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


def pytest_report_header() -> list[str]:
    """Versions that the results depend on, and the commit."""
    found = [f"{name} {_version(name)}" for name in ("torch", "numba", "numpy", "hypothesis")]
    return [", ".join(found), f"commit {_commit()}, {os.cpu_count()} cores"]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` are skipped where there is no CUDA device."""
    wanting = [item for item in items if item.get_closest_marker("gpu")]
    if wanting and not _has_cuda():
        for item in wanting:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def _has_cuda() -> bool:
    try:
        import torch
    except ModuleNotFoundError:
        return False
    return torch.cuda.is_available()


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """Every test starts from the same random state, in whatever order the tests run."""
    random.seed(0)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)
