"""From bounds to what was measured, through a real service and real executor runs."""

import pytest

torch = pytest.importorskip("torch")

from benchmarks.calibration.jobs import CalibrationJob, Case  # noqa: E402
from benchmarks.calibration.learning import learn  # noqa: E402
from planner_service.client import PlannerClient, PlannerRefused  # noqa: E402

DEVICE = "a device of the calibration test"
CASES = (
    Case("gru", "float32", 48, 16, 8, 60),
    Case("lstm", "float64", 24, 12, 8, 60),
    Case("rnn", "float32", 64, 16, 4, 60),
)


@pytest.fixture(scope="module")
def client(service):
    """A client of the running service."""
    with PlannerClient(service.url) as found:
        yield found


@pytest.fixture(scope="module")
def courses(client):
    """Three jobs that ran twice."""
    return learn(client, CASES, DEVICE, lambda _line: None)


def test_bounds_hold_and_calibrated_projections_are_true_to_a_hundredth(courses):
    """No projection below what was measured, before or after; the ratio falls to 1.01 at most"""
    for course in courses:
        assert course.bounds.ratio > 1.1
        assert 1 <= course.calibrated.ratio <= 1.01
        assert max(course.bounds.measured_bytes, course.calibrated.measured_bytes) <= course.budget_bytes


def test_the_lines_of_the_ledger_say_what_they_are(courses):
    """By the formulas some are bounds; with a probe stages are calibrated and the rest is exact"""
    for course in courses:
        assert "bound" in course.bounds.exactness
        assert {"calibrated", "exact"} <= set(course.calibrated.exactness)


def test_a_profile_shows_its_errors_before_and_after_and_its_margins(client, courses):
    """Runs are counted per segment length; the estimate is never below the measured"""
    page = client.profiles(device_name=DEVICE)
    assert {summary.cell for summary in page.profiles} == {"gru", "lstm", "rnn"}
    for summary in page.profiles:
        profile = client.profile(summary.id)
        course = next(c for c in courses if c.case.cell == summary.cell)
        runs = {margin.segment_steps: margin for margin in profile.margins}
        assert runs[course.calibrated.segment_steps].largest_ratio <= 1
        assert runs[course.calibrated.segment_steps].factor == 1
        assert sum(margin.runs for margin in profile.margins) == 2
        assert profile.errors
        assert all(error.estimated_bytes >= error.measured_bytes for error in profile.errors)


def test_a_plan_is_named_after_the_profile_that_it_was_made_with(client, courses):
    """By device, by profile id, and in full: one plan; by the formulas: another, which stays what it was"""
    job = CalibrationJob(CASES[0])
    budget_bytes = courses[0].budget_bytes
    by_device = client.plan(job.request(budget_bytes, device_name=DEVICE))
    summary = next(s for s in client.profiles(device_name=DEVICE).profiles if s.cell == "gru")
    by_id = client.plan(job.request(budget_bytes, profile_id=summary.id))
    assert by_device.id == by_id.id == courses[0].calibrated.plan_id
    by_formulas = client.plan(job.request(budget_bytes))
    assert by_formulas.id == courses[0].bounds.plan_id != by_device.id
    assert client.get_plan(by_formulas.id) == by_formulas


def test_a_run_that_went_beyond_its_projection_widens_the_plans_after_it(client, courses):
    """One bad measurement: the next plan projects that much more, under another id"""
    job = CalibrationJob(CASES[2])
    course = courses[2]
    steps = course.calibrated.segment_steps
    budget_bytes = 4 * course.budget_bytes
    before = client.plan(job.request(budget_bytes, device_name=DEVICE))
    bad = {
        **job.measurement(course.calibrated, DEVICE, "a worse run"),
        "projected_peak_bytes": 1000,
        "measured_peak_bytes": 1100,
    }
    for length in {steps, before.segment_steps}:
        client.post_measurement({**bad, "segment_steps": length})
    after = client.plan(job.request(budget_bytes, device_name=DEVICE))
    assert after.id != before.id
    assert client.get_plan(before.id) == before
    if after.segment_steps == before.segment_steps:
        assert after.memory.projected_peak_bytes > before.memory.projected_peak_bytes


def test_what_nobody_probed_is_bounded_by_the_formulas_or_refused(client, courses):
    """A device with profiles of other models: bounds for cells, a refusal for fused kernels"""
    job = CalibrationJob(CASES[0]._replace(hidden_size=40))
    assert client.plan(job.request(2**30, device_name=DEVICE)).id == client.plan(job.request(2**30)).id
    fused = job.request(2**30, device_name=DEVICE)
    fused["model"]["implementation"] = "fused"
    with pytest.raises(PlannerRefused) as refusal:
        client.plan(fused)
    assert refusal.value.slug == "profile-needed"


def test_a_profile_that_is_not_kept_is_refused_by_its_name(client):
    """422 for a request that names it, 404 for its own address"""
    job = CalibrationJob(CASES[0])
    with pytest.raises(PlannerRefused) as refusal:
        client.plan(job.request(2**30, profile_id="0" * 32))
    assert (refusal.value.status, refusal.value.slug) == (422, "profile-not-kept")
    with pytest.raises(PlannerRefused) as missing:
        client.profile("0" * 32)
    assert missing.value.status == 404
