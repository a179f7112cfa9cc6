"""Jobs of the service under a real Slurm: placed by fit, requeued by Slurm, fenced by the service."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.cluster.service_jobs import MIB, ended, has_trained, kept_its_promise, long, request, until
from tests.cluster.slurm_cluster import Node, missing_parts
from tests.serving import eventually

# One processor each: this host has few, and a job that waits its turn is a case of its own.
NODES = (Node("small", 800, cpus=1), Node("middle", 1_600, cpus=1), Node("large", 3_200, cpus=1))
JOB_SECONDS = 240.0

pytestmark = pytest.mark.skipif(bool(missing_parts()), reason=f"this machine lacks {missing_parts()}")


def test_ten_jobs_are_planned_placed_by_fit_trained_measured_and_reported(cluster, client):
    """Jobs that only the large node holds run there, whatever else is free"""
    budgets = ["2GiB", "2GiB", "1GiB", "free"] + ["8MiB"] * 6
    submitted = [client.submit_job(request(budget=budget)) for budget in budgets]
    done = [until(client, job.id, ended, JOB_SECONDS) for job in submitted]
    assert [job.state for job in done] == ["succeeded"] * 10, [job.detail for job in done]
    memory_mib = {node.name: node.memory_mib for node in NODES}
    for job in done:
        held = cluster.job(job.engine_reference)
        asked_mib = float(held["MinMemoryNode"].rstrip("M")) if job.needed_bytes else 0
        assert job.needed_bytes.cpu <= asked_mib * MIB
        assert asked_mib <= memory_mib[job.node]
        assert kept_its_promise(client, job)
    assert {job.node for job in done[:2]} == {"large"}


def test_a_job_of_a_lost_node_resumes_elsewhere_and_its_zombie_is_refused(cluster, client):
    """The successor goes on from the weights file; the old worker is fenced when it wakes, says so, and the
    result stays the successor's
    """
    job = client.submit_job(long(budget="1GiB"))
    job = until(client, job.id, has_trained(20), JOB_SECONDS)
    first_node = job.node
    zombies = cluster.job_processes(first_node)
    assert zombies
    for process_id in zombies:
        os.kill(process_id, signal.SIGSTOP)
    cluster.kill(first_node)
    job = until(client, job.id, lambda now: now.attempt == 2, JOB_SECONDS)
    assert job.node != first_node
    for process_id in zombies:
        os.kill(process_id, signal.SIGCONT)
    assert eventually(lambda: not any(_is_alive(process_id) for process_id in zombies), 30), (
        "the zombie lives"
    )
    cluster.start_node(first_node)
    log = Path(cluster.job(job.engine_reference)["StdOut"]).read_text()
    assert "fenced, the trainer's process group is stopped" in log
    assert "attempt 1 was replaced by attempt 2" in log
    job = until(client, job.id, ended, JOB_SECONDS)
    assert (job.state, job.attempt, job.failures) == ("succeeded", 2, 0)
    first, second = client.attempts(job.id)
    assert second.outcome == "succeeded"
    assert first.outcome is None
    assert _resumed_iteration(client, job) >= 1
    assert kept_its_promise(client, job)
    cluster.wait_until_idle()


def test_a_controller_that_is_killed_and_restarted_loses_no_job(cluster, client):
    """One that trains, one that waits for a node and one that is submitted while nobody listens all end"""
    training = client.submit_job(long(budget="2GiB"))  # for the large node, like the next
    waiting = client.submit_job(request(iterations=2, budget="2GiB"))
    until(client, training.id, has_trained(1), JOB_SECONDS)
    waiting = until(client, waiting.id, lambda now: now.engine_reference is not None, JOB_SECONDS)
    states = {job.id: cluster.job(_reference(client, job))["JobState"] for job in (training, waiting)}
    assert states == {training.id: "RUNNING", waiting.id: "PENDING"}
    cluster.kill("slurmctld")
    assert cluster.job_processes("large"), "its worker trains on"
    late = client.submit_job(request(iterations=2))
    cluster.start_controller()
    done = [
        until(client, job.id, lambda now: cluster.put_back() or ended(now), JOB_SECONDS)
        for job in (training, waiting, late)
    ]
    assert [job.state for job in done] == ["succeeded"] * 3, [job.detail for job in done]
    assert all(kept_its_promise(client, job) for job in done)


def _reference(client, job):
    return client.job(job.id).engine_reference


def _is_alive(process_id):
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _resumed_iteration(client, job):
    """The iteration after which the last attempt went on, by its log."""
    lines = [line.text for line in client.job_logs(job.id, attempt=job.attempt).lines]
    (said,) = [line for line in lines if "resuming after iteration" in line]
    return int(said.split()[-1])
