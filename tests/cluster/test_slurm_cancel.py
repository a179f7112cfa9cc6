"""Jobs of the service under a real Slurm that are cancelled: one that waits, and one that trains."""

from __future__ import annotations

import pytest

from tests.cluster.service_jobs import ended, endless, has_trained, until
from tests.cluster.slurm_cluster import Node, missing_parts
from tests.serving import eventually

NODES = (Node("only", 3_200, cpus=1),)
START_SECONDS = 120.0
CANCEL_SECONDS = 60.0

pytestmark = pytest.mark.skipif(bool(missing_parts()), reason=f"this machine lacks {missing_parts()}")


def test_cancelling_reaches_the_scheduler_whether_a_job_waits_or_trains(cluster, client):
    """The one leaves Slurm's queue unstarted; the other's worker ends, and its node takes jobs again"""
    training, waiting = (client.submit_job(endless()) for _ in range(2))
    training = until(client, training.id, has_trained(1), START_SECONDS)
    waiting = until(client, waiting.id, lambda job: job.engine_reference is not None, START_SECONDS)
    assert cluster.job(waiting.engine_reference)["JobState"] == "PENDING"

    client.cancel_job(waiting.id)
    assert eventually(
        lambda: cluster.job(waiting.engine_reference)["JobState"] == "CANCELLED",
        CANCEL_SECONDS,
        every_seconds=0.2,
    )
    waiting = until(client, waiting.id, ended, CANCEL_SECONDS)
    assert (waiting.state, waiting.reason, waiting.attempt) == ("cancelled", "cancelled", 0)
    assert client.job(training.id).state == "running"

    client.cancel_job(training.id)
    training = until(client, training.id, ended, CANCEL_SECONDS)
    assert (training.state, training.reason, training.attempt) == ("cancelled", "cancelled", 1)
    (attempt,) = client.attempts(training.id)
    assert attempt.outcome == "cancelled"
    cluster.wait_until_idle()
    assert cluster.job_processes("only") == []
