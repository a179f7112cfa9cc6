"""Jobs with reversible cells: read, prepared, planned with the probe's profile, checked while undoing."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from executor.job import InvalidJob, job_from_record  # noqa: E402
from executor.plan import undo_every  # noqa: E402
from executor.prepared import PreparedJob  # noqa: E402
from executor.report import SegmentCounts  # noqa: E402
from executor.worker import check_gradients, measured_iteration  # noqa: E402
from planner_service.contract import PlanRequest  # noqa: E402
from planner_service.planning import Planner  # noqa: E402


def job(**model):
    return {
        "model": {"kind": "rev_gru", "hidden_size": 8, "embedding_size": 4, **model},
        "data": {"characters": 2000},
        "sequence": {"length": 30, "batch_size": 2},
        "training": {"iterations": 1},
        "budget": "4MiB",
    }


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
