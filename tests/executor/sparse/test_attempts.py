"""An attempt at a sparse job: planned by a service, counted, reported as inexact."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from executor.attempt.stopping import Stopping
from executor.attempt.task import Task, job_of
from executor.attempt.trainer import Training

REQUEST = {
    "model": {"kind": "gru", "hidden_size": 8, "embedding_size": 4},
    "data": {"text": "python", "characters": 10_000},
    "sequence": {"length": 30, "batch_size": 2},
    "training": {"iterations": 3, "gradient_sparsity": {"rule": "rows", "cosine_every": 2, "dense_every": 3}},
}


def test_an_attempt_reports_what_it_dropped(service, tmp_path):
    task = Task(
        job=job_of(REQUEST, 60_000),
        job_id="job",
        name="job",
        number=1,
        work_dir=tmp_path,
        planner_url=service.url,
    )
    done = Training(task, lambda _message: None, Stopping()).run()
    assert done.outcome == "succeeded"
    assert (
        done.measurement["plan_id"] is not None
    )  # the service knows the rule that the profile was taken with
    assert done.measurement["exact_gradient"] is False
    found = done.measurement["gradient_sparsity"]
    assert [record["sparsity"] for record in found["iterations"]] == pytest.approx([0.5, 0.5, 0], abs=0.02)
    assert [cosine["iteration"] for cosine in found["cosines"]] == [0, 2]
    assert found["cosines"][1]["whole"] == pytest.approx(1, abs=1e-6)
    assert done.measurement["measured_peak_bytes"] <= 60_000
