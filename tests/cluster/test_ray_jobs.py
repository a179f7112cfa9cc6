"""Jobs of the service under a real Ray: a head and two nodes, one of which is cut off."""

from __future__ import annotations

import pytest

from planner_service.client import PlannerClient
from tests.cluster.ray_cluster import START_SECONDS, TOKEN, RayCluster, ray_command
from tests.cluster.service_jobs import (
    MIB,
    ended,
    has_trained,
    kept_its_promise,
    request,
    start,
    until,
)
from tests.serving import eventually

JOB_SECONDS = 240.0
NODE_BYTES = {"small": 900 * MIB, "large": 3_000 * MIB}

pytestmark = pytest.mark.skipif(ray_command() is None, reason="no Ray: run `make test-cluster`")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A head and two nodes, once they have told their resources."""
    running = RayCluster(tmp_path_factory.mktemp("ray") / "t")
    try:
        running.start(**NODE_BYTES)
        assert eventually(lambda: running.living_nodes() == 1 + len(NODE_BYTES), START_SECONDS)
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def client(cluster, tmp_path_factory):
    """A client of a service whose engine is this cluster."""
    folder = tmp_path_factory.mktemp("service")
    serving = start(
        folder / "data",
        folder / "work",
        TIGHTFIT_ENGINE="ray",
        TIGHTFIT_RAY_URL=cluster.url,
        TIGHTFIT_RAY_TOKEN=TOKEN,
    )
    with PlannerClient(serving.url) as found:
        yield found
    serving.terminate()


def test_three_jobs_end_although_a_node_is_cut_off(cluster, client):
    """The job on the lost node is handed over again and resumes; each job has one result"""
    long = client.submit_job(request(iterations=400, budget="1GiB"))  # only the large node holds it
    short = [client.submit_job(request(iterations=2)) for _ in range(2)]
    until(client, long.id, has_trained(20), JOB_SECONDS)
    cluster.cut("large")
    cluster.start_node("spare", NODE_BYTES["large"])
    done = [until(client, job.id, ended, JOB_SECONDS) for job in (long, *short)]
    assert [job.state for job in done] == ["succeeded"] * 3, [job.detail for job in done]
    assert done[0].attempt >= 2
    assert done[0].failures == 0
    assert all(kept_its_promise(client, job) for job in done)


def test_what_no_node_could_run_is_refused_and_not_left_pending(client):
    """Ray itself would wait for ever"""
    job = client.submit_job(request(budget="100GiB"))
    job = until(client, job.id, ended, 30)
    assert (job.state, job.reason) == ("failed", "error")
    assert "none of" in job.detail
    assert "nodes could ever run it" in job.detail
