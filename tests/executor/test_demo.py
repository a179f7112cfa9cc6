"""The demonstration, with a small model: everything but the size is as in `make demo`."""

import json
from dataclasses import replace

import pytest
import torch

from executor.demo import JOB, run_demo
from executor.jobs.comparison import Outcome, Trained
from executor.jobs.job import Job, ModelSpec, SequenceSpec, TrainingSpec
from executor.memory.budget import parse_budget
from executor.service.process import planning_service
from executor.verify import compare_gradients
from executor.worker import run_job

httpx = pytest.importorskip("httpx")  # a GPU image has no service to ask

SMALL = Job(
    model=ModelSpec(kind="lstm", hidden_size=32, embedding_size=16),
    sequence=SequenceSpec(length=300, batch_size=8),
    training=TrainingSpec(iterations=4, learning_rate=0.02),
    budget=parse_budget("20%"),
)


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The folder of a small demonstration that ran over HTTP, and its exit status."""
    folder = tmp_path_factory.mktemp("demo")
    return folder, run_demo(folder, lambda _line: None, SMALL)


def test_the_demonstration_is_about_a_twentieth_over_a_thousand_steps():
    """What `make demo` runs is what the README says"""
    assert JOB.sequence.length == 1_000
    assert JOB.budget == parse_budget("5%")


def test_it_succeeds(shown):
    """All promises are kept over HTTP, with the service in a process of its own"""
    assert shown[1] == 0


def test_it_writes_the_figures_and_the_picture(shown):
    """The JSON file holds the table's figures; the picture is a PNG of a page's width"""
    folder, _ = shown
    figures = json.loads((folder / "demo.json").read_text())
    assert figures["measured_peak_bytes"] <= figures["projected_peak_bytes"] <= figures["budget_bytes"]
    assert figures["full_bptt_peak_bytes"] > 3 * figures["budget_bytes"]
    picture = (folder / "memory.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert int.from_bytes(picture[16:20]) == 1500


def test_a_worker_reports_to_the_service(tmp_path):
    """A job planned over HTTP carries the plan's id, and the service keeps its measurement"""
    job = replace(SMALL, training=replace(SMALL.training, iterations=1))
    with planning_service(tmp_path) as url:
        report = run_job(job, name="over-http", planner_url=url)
        kept = httpx.get(f"{url}/v1/measurements", params={"job": "over-http"}).json()["measurements"]
    assert report.plan_id is not None
    assert [each["plan_id"] for each in kept] == [report.plan_id]
    assert kept[0]["measured_peak_bytes"] == report.measured_peak_bytes


def outcome(**changes):
    """An outcome that keeps all promises, with `changes`."""
    good = compare_gradients({"w": torch.ones(1)}, {"w": torch.ones(1)}, steps=9)
    kept = Outcome(
        activation_bytes=2000,
        budget_bytes=100,
        projected_peak_bytes=90,
        measured_peak_bytes=80,
        full_peak_bytes=2100,
        planned=Trained(1.2, 4.0, 3.0),
        full=Trained(1.0, 4.0, 3.0),
        at_full_length=good,
        in_float64=good,
        plan="",
    )
    return replace(kept, **changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"measured_peak_bytes": 101}, "in a budget of 100"),
        ({"measured_peak_bytes": 91}, "projected 90"),
        ({"planned": Trained(1.0, 4.0, 4.0)}, "did not fall"),
        ({"planned": Trained(1.0, 4.0, float("nan"))}, "did not fall"),
        (
            {"at_full_length": compare_gradients({"w": torch.ones(1)}, {"w": torch.zeros(1)}, steps=9)},
            "w by 1.0e",
        ),
    ],
)
def test_a_broken_promise_makes_it_fail(changes, reason):
    """Over budget, above the projection, another gradient, or nothing learned: each is named"""
    assert outcome().broken_promises() == []
    assert reason in " ".join(outcome(**changes).broken_promises())


def test_the_table_has_every_figure():
    """Budget, both peaks, utilization, time ratio, gradient difference, losses"""
    table = outcome().table()
    for part in ("100 B", "90 B", "80 B", "80.0 %", "1.20", "gradient difference", "4.000", "3.000"):
        assert part in table
