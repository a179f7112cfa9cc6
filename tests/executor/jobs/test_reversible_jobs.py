"""Jobs with reversible cells: read, prepared, planned with the probe's profile, checked while undoing."""

from __future__ import annotations

from functools import cache

import pytest

torch = pytest.importorskip("torch")

from executor.jobs.job import InvalidJob, job_from_record  # noqa: E402
from executor.jobs.prepared import PreparedJob  # noqa: E402
from executor.jobs.report import SegmentCounts  # noqa: E402
from executor.loop import Loop  # noqa: E402
from executor.measure import measure  # noqa: E402
from executor.plan import tape_everything, undo_every  # noqa: E402
from executor.probe import usual_candidates  # noqa: E402
from executor.reversible import RevGRU  # noqa: E402
from executor.reversible.archive import WORD_BYTES, Archive  # noqa: E402
from executor.worker import check_gradients, measured_iteration, run_job  # noqa: E402
from planner_service.contract import PlanRequest  # noqa: E402
from planner_service.contract.measurements import MeasurementReport  # noqa: E402
from planner_service.planning import Planner  # noqa: E402


def job(**model):
    return {
        "model": {"kind": "rev_gru", "hidden_size": 8, "embedding_size": 4, **model},
        "data": {"characters": 2000},
        "sequence": {"length": 30, "batch_size": 2},
        "training": {"iterations": 1},
        "budget": "4MiB",
    }


@cache
def prepared_of(kind):
    """Probed once for several tests."""
    return PreparedJob.of(job_from_record(job(kind=kind)), lambda _line: None)


def test_a_reversible_job_is_planned_by_its_profile_and_undone_as_planned():
    """The service takes the request; gradients pass, counts are kept, the peak is within the projection"""
    prepared = PreparedJob.of(job_from_record(job(kind="rev_lstm", forget_bits=2)), lambda _line: None)
    memory = {"device_budget_bytes": "8MiB"}
    reply = Planner(()).plan(PlanRequest.model_validate({**prepared.request(), "memory": memory}))
    assert reply.cost.unit == "seconds"
    assert reply.segment_steps in {segment.segment_steps for segment in prepared.probe.segments}
    plan = undo_every(30, 5, 3)
    check = check_gradients(prepared, plan)
    assert check is not None
    assert check.passed
    assert check.largest_relative_difference < 1e-13
    measured, executed = measured_iteration(prepared, plan)
    assert executed == SegmentCounts.of(plan.schedule()) == SegmentCounts(9, 6)
    assert measured.peak_bytes <= plan.replayed(prepared.probe.chain(30, 5)).peak_bytes
    # 3 segments of 5 steps are archived first: 32 units, 2 bits a step, and a word of each at most beyond.
    assert 0 < prepared.model.recurrent.archived_bytes <= 32 * 15 * 2.0001 / 8 + 2 * 32


@pytest.mark.parametrize("plan", [undo_every(30, 5, 3), undo_every(30, 2, 15)], ids=["in turns", "at once"])
@pytest.mark.parametrize("kind", ["rev_lstm", "nf_rev_gru"])
def test_archived_bytes_are_measured_exactly(kind, plan, monkeypatch):
    """Against a count of the words that archives take and give; a run that undoes nothing has no figure"""
    prepared = prepared_of(kind)
    held, most = [0], [0]

    def counting(name, sign):
        original = getattr(Archive, name)

        def counted(archive, words):
            held[0] += sign * WORD_BYTES * (words if isinstance(words, int) else words.numel())
            most[0] = max(most[0], held[0])
            return original(archive, words)

        monkeypatch.setattr(Archive, name, counted)

    counting("push", 1)
    counting("pop", -1)
    measured, _ = measured_iteration(prepared, plan)
    assert measured.archived_bytes == most[0]
    assert (most[0] > 0) == (kind == "rev_lstm")
    assert held[0] == 0
    taped, _ = measured_iteration(prepared, tape_everything(30, 5))
    assert taped.archived_bytes is None


def test_a_module_without_a_plan_reports_what_it_archived():
    module = RevGRU(3, 8, forget_bits=2)
    measured = measure(lambda: module(torch.randn(50, 4, 3))[0].sum().backward())
    assert measured.archived_bytes == module.archived_bytes > 0
    assert module.archived_bytes < measured.peak_bytes


def test_the_report_of_a_run_that_undoes_carries_the_exact_figure(monkeypatch):
    """In the measurement that the service takes, and in the table for people"""
    plan = undo_every(30, 5, 3)
    monkeypatch.setattr(PreparedJob, "plan", lambda *_: (plan, None))
    report = run_job(job_from_record(job(forget_bits=2)), name="undone")
    sent = MeasurementReport.model_validate(report.measurement())
    assert sent.archived_bytes == report.archived_bytes > 0
    assert "of it lost bits" in report.table()
    assert not report.broken_promises


def test_reversible_loops_are_probed_without_the_longest_segments():
    """Ordinary segments are tried up to 100 steps; those of reversible layers up to 50"""
    modules = (RevGRU(3, 4), torch.nn.GRU(3, 4))
    states = (modules[0].initial_state(2), torch.zeros(1, 2, 4))
    segments = (modules[0].segment, lambda state, x: modules[1](x, state)[::-1])
    longest = []
    for module, state, segment in zip(modules, states, segments, strict=True):
        loop = Loop.of(None, state, torch.randn(120, 2, 3), segment=segment, module=module)
        longest.append(max(usual_candidates(loop, loop.needs())))
    assert longest == [50, 100]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ({"hidden_size": 7}, "model.hidden_size: 7 must be even"),
        ({"dtype": "bfloat16"}, "model.dtype: 'bfloat16' is not one of float32, float64"),
        ({"forget_bits": 11}, "model.forget_bits: 11 must be a whole number in 1..10"),
        ({"forget_bits": True}, "model.forget_bits: True must be a whole number"),
        ({"kind": "rev_rnn"}, "model.kind"),
    ],
)
def test_reversible_jobs_out_of_range_are_refused_by_their_field(model, reason):
    """Before anything is allocated"""
    with pytest.raises(InvalidJob, match=reason):
        job_from_record(job(**model))


def test_a_limit_of_forgetting_can_be_lifted():
    """`forget_bits: null` sets none; the nf cells have none"""
    assert job_from_record(job(forget_bits=None)).model.forget_bits is None
    assert job_from_record(job(kind="nf_rev_lstm")).model.kind == "nf_rev_lstm"
