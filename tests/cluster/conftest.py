"""Clusters are started only inside `tests/cluster/isolated.sh`, as `make test-cluster` does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from planner_service.client import PlannerClient
from tests.cluster.service_jobs import start
from tests.cluster.slurm_cluster import SlurmCluster

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the clusters out of every other run."""
    if os.environ.get("ISOLATED_CLUSTERS"):
        return
    skip = pytest.mark.skip(reason="starts a cluster: run `make test-cluster`")
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(skip)


@pytest.fixture(scope="module")
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SlurmCluster]:
    """A Slurm cluster of the module's NODES; a test that takes a part of it away brings it back."""
    running = SlurmCluster(tmp_path_factory.mktemp("slurm") / "slurm", request.module.NODES)
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def client(cluster: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlannerClient]:
    """A client of a service whose engine is that cluster."""
    folder = tmp_path_factory.mktemp("service")
    conf = cluster.environment["SLURM_CONF"]
    serving = start(folder / "data", folder / "work", TIGHTFIT_ENGINE="slurm", SLURM_CONF=conf)
    with PlannerClient(serving.url) as found:
        yield found
    serving.terminate()
