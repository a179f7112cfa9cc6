"""A worker keeps the promises of the plan, and its report shows it."""

import json
from dataclasses import replace

import pytest
import torch

from executor.errors import BudgetTooSmall
from executor.jobs.job import Job, ModelSpec, ReportSpec, SequenceSpec, TrainingSpec
from executor.jobs.models import CharacterModel
from executor.jobs.report import SegmentCounts
from executor.memory.budget import parse_budget
from executor.worker import run_job
from planner_service.chain import Advance, Backward, Free, Tape

JOB = Job(
    model=ModelSpec(kind="gru", hidden_size=16, embedding_size=8),
    sequence=SequenceSpec(length=120, batch_size=4),
    training=TrainingSpec(iterations=4, learning_rate=0.02),
    budget=parse_budget("20%"),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A job that ran once, with the folder of its files and the lines that it printed."""
    folder = tmp_path_factory.mktemp("job")
    report = ReportSpec(output=str(folder / "report.json"), weights=str(folder / "weights.pt"))
    lines = []
    result = run_job(replace(JOB, report=report), name="small", progress=lines.append)
    return result, folder, lines


def test_the_measured_peak_is_within_the_budget(finished):
    """Measured <= projected <= budget, all above zero"""
    report, _, _ = finished
    assert 0 < report.measured_peak_bytes <= report.projected_peak_bytes <= report.budget_bytes
    assert report.broken_promises == []


def test_the_budget_made_recomputation_necessary_and_it_is_counted(finished):
    """Segments run as often as the plan says, more often than full BPTT would"""
    report, _, _ = finished
    assert report.executed == report.planned
    assert sum(report.executed) > report.segment_count


def test_the_gradients_are_those_of_full_bptt(finished):
    """The check ran in float64 and passed"""
    check = finished[0].gradient_check
    assert check.dtype == "float64"
    assert check.passed


def test_it_learns(finished):
    """The loss on text that was not trained on falls"""
    report, _, _ = finished
    assert report.loss_after < report.loss_before
    assert len(report.losses) == JOB.training.iterations


def test_the_report_file_holds_what_the_report_holds(finished):
    """The JSON file is the record of the report"""
    report, folder, _ = finished
    assert json.loads((folder / "report.json").read_text()) == json.loads(json.dumps(report.record()))


def test_the_weights_file_fits_the_model(finished):
    """The saved weights load into a model of the same job"""
    folder = finished[1]
    weights = torch.load(folder / "weights.pt")
    model = CharacterModel(JOB.model, vocabulary_size=weights["embedding.weight"].shape[0])
    model.load_state_dict(weights)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_progress_says_what_happens(finished):
    """Budget, plan, check, peak and every iteration have their line"""
    lines = "\n".join(finished[2])
    for part in ("budget: 20%", "plan: ", "gradients", "measured peak", "iteration 4/4", "report: "):
        assert part in lines


def test_the_table_shows_both_peaks(finished):
    """People see the projected and the measured peak side by side"""
    table = finished[0].table()
    assert "projected peak" in table
    assert "measured peak" in table


def test_the_table_shows_the_error_before_and_after_the_probe(finished):
    """By the formulas alone, which nothing was measured for, and by the probe, which never undershoots"""
    report = finished[0]
    before = report.computed_peak_bytes / report.measured_peak_bytes - 1
    after = report.projected_peak_bytes / report.measured_peak_bytes - 1
    assert 0 <= after < 0.01 < abs(before)
    assert f"{100 * before:+.2f} % by formulas alone, {100 * after:+.2f} % after the probe" in report.table()
    assert report.measurement()["computed_peak_bytes"] == report.computed_peak_bytes


def test_the_same_seed_gives_the_same_losses():
    """A job is repeatable: two runs learn the same"""
    job = replace(JOB, training=replace(JOB.training, iterations=2))
    job = replace(job, report=replace(job.report, gradient_check_steps=0))
    first, second = (run_job(job, name="twice") for _ in range(2))
    # Plans may differ in their timings, hence in the order of sums: equal to float32 rounding.
    assert first.losses == pytest.approx(second.losses, rel=1e-5)
    assert first.gradient_check is None


def test_a_budget_that_is_too_small_names_one_that_works():
    """The refusal comes before training, and the budget that it names is enough"""
    with pytest.raises(BudgetTooSmall) as caught:
        run_job(replace(JOB, budget=parse_budget(1_000)), name="small")
    least = caught.value.minimum_budget_bytes
    job = replace(JOB, budget=parse_budget(least), training=replace(JOB.training, iterations=1))
    report = run_job(job, name="least")
    assert report.measured_peak_bytes <= least


def test_broken_promises_are_named(finished):
    """A peak above the budget or a count that differs is in the report, in words"""
    report = replace(finished[0], budget_bytes=1, executed=SegmentCounts(1, 2))
    assert len(report.broken_promises) == 2
    assert "exceeds the budget" in report.broken_promises[0]


def test_counts_are_those_of_the_actions():
    """Advanced and taped segments are counted by their ranges"""
    actions = [Advance(1, 3), Tape(4, 5), Backward(5, 4), Free(3), Tape(1, 1)]
    assert SegmentCounts.of(actions) == SegmentCounts(advance_count=3, tape_count=3)


@pytest.mark.usefixtures("one_thread")  # without OpenMP torch's kernels would need more
@pytest.mark.parametrize("by", ["in process", "service"])
def test_a_host_budget_is_kept_and_reported(by, tmp_path, request):
    """Stored states move to host memory where that is faster, within the budget that the job names; the
    planner in this process and the service alike
    """
    url = request.getfixturevalue("service").url if by == "service" else None
    output = tmp_path / "report.json"
    # A state of 128 x 8 floats takes microseconds to copy and milliseconds to compute again.
    job = replace(
        JOB,
        model=ModelSpec(kind="gru", hidden_size=128, embedding_size=8),
        sequence=SequenceSpec(length=60, batch_size=8),
        training=TrainingSpec(iterations=1),
        report=ReportSpec(gradient_check_steps=10),
        budget=parse_budget("20%"),
        host_budget_bytes=2**20,
    )
    report = run_job(job, name="moved", planner_url=url, output=output)
    assert report.broken_promises == []
    assert report.strategy == "offload"
    assert 0 < report.measured_host_bytes <= 2**20
    assert json.loads(output.read_text())["measured_host_bytes"] == report.measured_host_bytes
    assert "host memory" in report.table()


def test_host_memory_beyond_its_budget_breaks_a_promise(finished):
    """More than the job allowed, or any where it allowed none, is said"""
    report, _, _ = finished
    over = replace(report, measured_host_bytes=3)
    assert over.broken_promises == ["the measured host memory exceeds its budget by 3 bytes"]
