"""Jobs of the service under a real Ray: a head and two nodes, one of which is cut off."""

from __future__ import annotations

import pytest

from planner_service.client import PlannerClient
from planner_service.dispatch import EngineRefused, Launch, Resources
from planner_service.dispatch.ray import RayEngine
from tests.cluster.ray_cluster import TOKEN, RayCluster, RayNode, ray_command
from tests.cluster.service_jobs import (
    MIB,
    ended,
    has_trained,
    kept_its_promise,
    long,
    request,
    start,
    until,
)
from tests.serving import eventually

JOB_SECONDS = 240.0
LARGE_BYTES = 3_000 * MIB
DEVICE_MIB = 1_000
NODES = (
    RayNode("small", 900 * MIB, cpus=2, device_memory_mib=DEVICE_MIB),
    RayNode("large", LARGE_BYTES),
)

pytestmark = pytest.mark.skipif(ray_command() is None, reason="no Ray: run `make test-cluster`")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A head and two nodes, once they have told their resources; one of them says that it has a device."""
    running = RayCluster(tmp_path_factory.mktemp("ray") / "t")
    try:
        running.start(*NODES)
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
        TIGHTFIT_LOST_AFTER_SECONDS="20",  # of the heartbeats of a second: nobody waits for three minutes
    )
    with PlannerClient(serving.url) as found:
        yield found
    serving.terminate()


def log_of(client, job_id):
    """What the second attempt has logged so far."""
    return "\n".join(line.text for line in client.job_logs(job_id, attempt=2).lines)


def test_three_jobs_end_although_a_node_is_cut_off(cluster, client):
    """The job on the lost node is handed over again and resumes; each job has one result"""
    cut = client.submit_job(long(budget="1GiB"))  # only the large node holds it
    short = [client.submit_job(request(iterations=2)) for _ in range(2)]
    until(client, cut.id, has_trained(20), JOB_SECONDS)
    cluster.cut("large")
    cluster.start_node(RayNode("spare", LARGE_BYTES))
    done = [until(client, job.id, ended, JOB_SECONDS) for job in (cut, *short)]
    assert [job.state for job in done] == ["succeeded"] * 3, [job.detail for job in done]
    assert done[0].attempt >= 2
    assert eventually(lambda: "resuming after iteration" in log_of(client, cut.id), 30, every_seconds=0.2)
    assert done[0].failures == 0
    assert all(kept_its_promise(client, job) for job in done)


def test_what_no_node_could_run_is_refused_and_not_left_pending(client):
    """Ray itself would wait for ever"""
    job = client.submit_job(request(budget="100GiB"))
    job = until(client, job.id, ended, 30)
    assert (job.state, job.reason) == ("failed", "error")
    assert "none of" in job.detail
    assert "nodes could ever run it" in job.detail


@pytest.fixture
def engine(cluster):
    """The service's engine, asked in this process: a worker for a device would need one."""
    ray = RayEngine(cluster.url, token=TOKEN)
    yield ray
    ray._http.close()  # the service keeps its own for as long as it lives


def sleeping(name, *, device_mib, told="/dev/null"):
    """A launch that asks for so much memory of a device, writes which one it was shown, and sleeps."""
    resources = Resources(device="cuda", limit_bytes=device_mib * MIB)
    return Launch(
        job_id=name,
        number=1,
        command=("sh", "-c", f"printenv CUDA_VISIBLE_DEVICES > {told}; exec sleep 600"),
        launch_token="unused",
        work_dir="/unused",
        resources=resources,
    )


def test_ray_sets_the_memory_of_a_device_aside_and_shows_the_device(engine, tmp_path):
    """What the device does not hold besides the first job waits, and what it does hold overtakes"""
    sizes_mib = {"first": 600, "second": 600, "third": 300}
    first, second, third = (
        engine.submit(sleeping(name, device_mib=mib, told=tmp_path / name)) for name, mib in sizes_mib.items()
    )
    for runs in (first, third):
        assert eventually(lambda runs=runs: engine.status(runs).state == "running", 60, every_seconds=0.2)
    assert engine.status(second).state == "waiting"
    for name in ("first", "third"):
        assert eventually(lambda name=name: (tmp_path / name).exists(), 30)
        assert eventually(lambda name=name: (tmp_path / name).read_text() == "0\n", 30)
    for reference in (second, third, first):
        engine.cancel(reference)


def test_a_job_that_no_device_holds_is_refused_before_it_is_submitted(engine):
    launch = sleeping("huge", device_mib=DEVICE_MIB + 1)
    with pytest.raises(EngineRefused, match="none of 3 nodes could ever run it"):
        engine.submit(launch)
    assert engine.status(launch.name).state == "missing"
