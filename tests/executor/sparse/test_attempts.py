"""An attempt at a sparse job: planned by a service, counted, reported as inexact."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("torch")

from executor.attempt.measuring import Measured
from executor.attempt.stopping import Stopping
from executor.attempt.task import Task, job_of
from executor.attempt.trainer import Training

REQUEST = {
    "model": {"kind": "gru", "hidden_size": 8, "embedding_size": 4},
    "data": {"text": "python", "characters": 10_000},
    "sequence": {"length": 30, "batch_size": 2},
    "training": {"iterations": 3, "gradient_sparsity": {"rule": "rows", "cosine_every": 2, "dense_every": 3}},
}


def training(service, tmp_path, request=REQUEST):
    """An attempt at such a job."""
    task = Task(
        job=job_of(request, 60_000),
        job_id="job",
        name="job",
        number=1,
        work_dir=tmp_path,
        planner_url=service.url,
    )
    return Training(task, lambda _message: None, Stopping())


def test_an_attempt_reports_what_it_dropped(service, tmp_path):
    done = training(service, tmp_path).run()
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


def test_an_attempt_that_stops_before_its_first_iteration_says_it_too(service, tmp_path, monkeypatch):
    """Or the service would calibrate exact plans with its peak"""
    measure = Measured.of
    monkeypatch.setattr(Measured, "of", lambda *given: replace(measure(*given), peak_bytes=10**9))
    done = training(service, tmp_path).run()
    assert done.outcome == "oom"
    assert done.measurement["exact_gradient"] is False
    exact = {**REQUEST, "training": {"iterations": 1}}
    assert "exact_gradient" not in training(service, tmp_path / "exact", exact).run().measurement
