"""A trainer's work in this process: what it reports, and what it refuses before it trains."""

import json
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from executor.attempt import trainer  # noqa: E402
from executor.attempt.measuring import RECORDED_BYTES  # noqa: E402
from executor.attempt.memory_cap import memory_cap  # noqa: E402
from executor.attempt.stopping import Stopping, StopRequested  # noqa: E402
from executor.attempt.supervisor import Supervisor  # noqa: E402
from executor.attempt.task import Task, job_of  # noqa: E402
from executor.attempt.trainer import Training  # noqa: E402
from executor.errors import BudgetTooSmall  # noqa: E402
from executor.jobs.job import InvalidJob  # noqa: E402
from executor.jobs.slowdown import SlowdownTooGreat  # noqa: E402
from planner_service.contract.jobs import JobRequest  # noqa: E402
from planner_service.contract.measurements import MeasurementReport  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")  # small kernels on two threads wait for each other

REQUEST = {
    "model": {"kind": "rnn", "hidden_size": 8, "embedding_size": 4, "dtype": "float64"},
    "data": {"text": "python", "characters": 10_000},
    "sequence": {"length": 30, "batch_size": 2},
    "training": {"iterations": 6, "learning_rate": 0.01},
}


def task_of(url, folder, **changes):
    """An attempt at a small job."""
    task = Task(
        job=job_of(REQUEST, 40_000), job_id="job", name="job", number=1, work_dir=folder, planner_url=url
    )
    return replace(task, **changes)


class StopAfterFirst(Stopping):
    """Asks to stop once the first iteration was told."""

    def emit(self, message):
        """Receives the trainer's messages."""
        self.is_requested = message["iteration"] >= 1


FEEDBACK = {"rule": "rms", "threshold": 0.5, "error_feedback": True, "cosine_every": 0}
OWING = REQUEST | {
    "model": REQUEST["model"] | {"kind": "lstm"},
    "training": REQUEST["training"] | {"gradient_sparsity": FEEDBACK},
}
"""A job whose iterations owe the next ones something beside the weights."""


@pytest.mark.parametrize("asked", [REQUEST, OWING], ids=["exact", "error feedback"])
def test_a_stopped_run_goes_on_with_the_losses_of_one_that_was_not(asked, service, tmp_path):
    """Stopped after one iteration, resumed by the next attempt under the same plan: equal to the last bit"""
    job = job_of(asked, 40_000)
    whole = Training(
        task_of(service.url, tmp_path / "whole", job=job), lambda _message: None, Stopping()
    ).run()
    assert whole.outcome == "succeeded"

    stop = StopAfterFirst()
    stopped = Training(task_of(service.url, tmp_path / "cut", job=job), stop.emit, stop)
    (tmp_path / "cut").mkdir()
    (file,) = (tmp_path / "whole").glob("weights-*.pt")
    plan = torch.load(file, weights_only=True)["plan"]  # timings may choose another: both take this one
    stopped._plan = _given(stopped._plan, plan)
    with pytest.raises(StopRequested):
        stopped.run()
    assert stopped.result("preempted").iteration == 1

    again = task_of(service.url, tmp_path / "cut", job=job, number=2)
    done = Training(again, lambda _message: None, Stopping()).run()
    assert done.measurement["losses"] == whole.measurement["losses"]
    assert (done.iteration, done.measurement["iterations"]) == (6, 5)


def test_a_job_that_is_invalid_whoever_tries_is_not_tried_again(service, tmp_path):
    """A text shorter than one sequence: the trainer says that it is for good; another fault is not"""
    job = job_of({**REQUEST, "data": {"text": "python", "characters": 10}}, 40_000)
    training = Training(task_of(service.url, tmp_path, job=job), lambda _message: None, Stopping())
    with pytest.raises(InvalidJob) as refused:
        training.run()
    assert training.failed(refused.value, 0).record()["is_permanent"]
    assert not training.failed(ArithmeticError("another fault"), 0).record()["is_permanent"]


def test_states_move_to_the_host_memory_that_the_job_names(service, tmp_path):
    """Its budget is kept too; what is moved is told beside the device's bytes"""
    request = JobRequest.model_validate(
        {
            # A state of 128 x 8 floats takes microseconds to copy and milliseconds to compute again.
            "model": {"kind": "gru", "hidden_size": 128, "embedding_size": 8},
            "data": {"text": "python", "characters": 10_000},
            "sequence": {"length": 60, "batch_size": 8},
            "training": {"iterations": 2},
            "budget": "25%",
            "host_budget": "1MiB",
        }
    )
    job = job_of(request.model_dump(), request.budget)
    task = task_of(service.url, tmp_path, job=job, strategy="offload")
    training = Training(task, lambda _message: None, Stopping())
    told = training.run().measurement
    assert told["strategy"] == "offload"
    assert 0 < told["measured_host_bytes"] <= told["host_budget_bytes"] == 2**20
    assert 0 < told["measured_peak_bytes"] <= told["projected_peak_bytes"] <= told["budget_bytes"]
    assert len(told["losses"]) == 2


def _given(plan_of, text):
    from executor.attempt.planning import StoredPlan

    return lambda prepared, saved: StoredPlan.of(text) if saved is None else plan_of(prepared, saved)


def test_the_measurement_says_what_was_projected_measured_and_calibrated(service, tmp_path):
    """Peaks three ways, seconds per kind of action, cell, dtype, segments, gradients; within the budget"""
    result = Training(task_of(service.url, tmp_path), lambda _message: None, Stopping()).run()
    told = result.measurement
    assert 0 < told["measured_peak_bytes"] <= told["projected_peak_bytes"] <= told["budget_bytes"] == 40_000
    assert told["measured_reserved_bytes"] == told["measured_peak_bytes"] < told["measured_device_bytes"]
    error_before = abs(told["computed_peak_bytes"] / told["measured_peak_bytes"] - 1)
    error_after = told["projected_peak_bytes"] / told["measured_peak_bytes"] - 1
    assert 0 <= error_after < 0.01 < error_before
    assert told["seconds_per_tape"] > 0
    assert told["seconds_per_backward"] > 0
    assert (told["cell"], told["dtype"], told["device"]) == ("rnn", "float64", "cpu")
    assert told["segment_steps"] >= 1
    assert len(told["losses"]) == told["iterations"] == 6
    report = MeasurementReport.model_validate_json(json.dumps(told))
    assert report.gradient_check is not None
    assert report.gradient_check.passed
    assert report.gradient_check.largest_difference < 1e-12


def test_what_is_recorded_to_measure_is_no_part_of_what_training_may_take(service, tmp_path, monkeypatch):
    """On the CPU every allocation is noted in this process: for 250 runs of a segment 128 MiB were too
    little, and the job was said to be out of memory.
    """
    caps = []

    def noted(added_bytes, device, *, recorded_bytes=0):
        caps.append((added_bytes, recorded_bytes))
        return memory_cap(added_bytes, device, recorded_bytes=recorded_bytes)

    monkeypatch.setattr(trainer, "memory_cap", noted)
    result = Training(task_of(service.url, tmp_path), lambda _message: None, Stopping()).run()
    assert result.outcome == "succeeded"
    (measuring, recorded), (training, nothing) = caps
    assert (measuring, nothing) == (training, 0)
    assert recorded >= 30 * RECORDED_BYTES  # every step runs at least once


def test_a_budget_below_the_least_is_refused_with_the_least(service, tmp_path):
    """Before anything is trained"""
    task = task_of(service.url, tmp_path, job=job_of(REQUEST, 1000))
    with pytest.raises(BudgetTooSmall) as refusal:
        Training(task, lambda _message: None, Stopping()).run()
    assert refusal.value.minimum_budget_bytes > 1000
    assert list(tmp_path.glob("weights-*")) == []


def test_a_plan_that_is_slower_than_the_job_allows_is_refused_with_both_ratios(service, tmp_path):
    """The least budget needs recomputation; no slowdown at all is allowed"""
    with pytest.raises(BudgetTooSmall) as least:
        Training(
            task_of(service.url, tmp_path, job=job_of(REQUEST, 1000)), lambda _message: None, Stopping()
        ).run()
    job = job_of(REQUEST, least.value.minimum_budget_bytes)
    task = task_of(service.url, tmp_path, job=job, maximum_slowdown_ratio=1.0)
    with pytest.raises(SlowdownTooGreat) as refusal:
        Training(task, lambda _message: None, Stopping()).run()
    assert refusal.value.slowdown_ratio > refusal.value.maximum_slowdown_ratio == 1.0


@pytest.mark.parametrize(
    ("exit_status", "was_oom", "stop_asked", "outcome", "word"),
    [
        (-9, False, None, "error", "signal 9"),
        (-9, True, None, "oom", "out-of-memory killer"),
        (70, False, None, "error", "exit status 70"),
        (-9, False, "signal", "preempted", "grace"),
        (-9, False, "cancel", "cancelled", "grace"),
    ],
)
def test_a_trainer_that_went_without_a_word_is_told_by_its_end(
    exit_status, was_oom, stop_asked, outcome, word, tmp_path
):
    """Killed, killed for memory, crashed, or killed because it was asked to stop and did not"""
    supervisor = Supervisor(task_of("http://127.0.0.1:9", tmp_path), None, None)
    supervisor.stop_asked = stop_asked
    supervisor.progress = {"iteration": 7, "loss": 1.5}
    fields = supervisor._fields(exit_status, was_oom=was_oom)
    assert (fields["outcome"], fields["iteration"]) == (outcome, 7)
    assert word in fields["detail"]
