"""Clusters are started only inside `tests/cluster/isolated.sh`, as `make test-cluster` does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the clusters out of every other run."""
    if os.environ.get("ISOLATED_CLUSTERS"):
        return
    skip = pytest.mark.skip(reason="starts a cluster: run `make test-cluster`")
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(skip)
