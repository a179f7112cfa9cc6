"""Which segment length is chosen: measured times nearly alike, and gradients that are cut."""

import pytest

from planner_service.chain import PlanningError
from planner_service.contract import FrontierRequest, PlacementRequest, PlanRequest
from planner_service.planning import Planner, choice
from planner_service.planning.candidates import candidates_of
from planner_service.solvers import ScheduleTooLong, search, solve
from tests.contract.requests import LSTM, stage_of

PLANNER = Planner(())
STEPS = 104


def measured_stage(steps, step_seconds):
    """Stages that can be undone: their frontiers and curves are planned budget by budget."""
    return {
        "forward_cost": steps * step_seconds,
        "taped_forward_cost": steps * step_seconds,
        "backward_cost": 2 * steps * step_seconds,
        "state_bytes": 4096,
        "tape_bytes": steps * 20_000,
        "reversal": {
            "archive_bytes": steps * 100,
            "undo_cost": 3 * steps * step_seconds,
            "undo_workspace_bytes": steps * 20_000,
        },
    }


def measured():
    """A RevGRU whose single steps are quicker by half a thousandth than its segments of four."""
    model = {"kind": "rev_gru", "input_size": 16, "hidden_size": 32, "forget_bits": 3, "coding": "scheduled"}
    lengths = ((1, 1.0), (4, 1.0005))
    profile = {
        "device": "cpu",
        "torch": "2.13.0",
        "cell": model["kind"],
        "implementation": "steps",
        "dtype": "float32",
        **{name: model[name] for name in ("input_size", "hidden_size", "forget_bits", "coding")},
        "batch_size": 8,
        "sequence_length": STEPS,
        "input_bytes": 4096,
        "segments": [
            {"segment_steps": steps, "last_steps": steps, "inner": measured_stage(steps, step_seconds)}
            for steps, step_seconds in lengths
        ],
    }
    sequence = {"length": STEPS, "batch_size": 8}
    return {"model": model, "sequence": sequence, "training": {"optimizer": "sgd"}, "profile": profile}


def test_full_bptt_is_that_of_the_quickest_segments_wherever_it_fits():
    """There is nothing to search for: no thousandth of the time is given away"""
    reply = PLANNER.plan(PlanRequest.model_validate({**measured(), "memory": {"device_budget_bytes": "1GB"}}))
    assert (reply.segment_steps, reply.cost.overhead_ratio) == (1, 0)
    assert reply.cost.makespan == reply.cost.store_all_makespan


def test_the_least_bytes_without_any_overhead_are_found():
    asked = FrontierRequest.model_validate({**measured(), "points": 4, "at_most_overhead_ratio": 0})
    reply = PLANNER.frontier(asked)
    assert reply.least_bytes.overhead_ratio == 0
    assert reply.least_bytes.budget_bytes <= reply.store_all_peak_bytes


def test_a_job_that_may_be_no_slower_than_full_bptt_is_placed_where_that_fits():
    """What other holes lack is told"""
    job = {**measured(), "device": "cpu", "maximum_slowdown_ratio": 1.0}
    holes = [
        {"name": name, "device": "cpu", "memory_total_bytes": size, "context_bytes": 0}
        for name, size in (("large", "1GB"), ("small", "1MB"))
    ]
    (placed,) = PLANNER.place(PlacementRequest.model_validate({"jobs": [job], "holes": holes})).jobs
    large, small = placed.offers
    assert (large.hole, large.fits, large.slowdown_ratio) == ("large", True, 1.0)
    assert (small.reason, small.missing_bytes) == ("slowdown", large.budget_bytes - small.available_bytes)


@pytest.mark.parametrize("budget", ["700MiB", "2GiB", "5GiB"])
def test_a_truncated_gradient_is_cut_as_late_as_any_segment_length_allows(budget):
    """All segment lengths cost the same; in the largest budget one of them need not cut at all"""
    asked = {**LSTM, "memory": {"device_budget_bytes": budget}, "strategy": "truncated"}
    request = PlanRequest.model_validate(asked)
    reaches = []
    for candidate in candidates_of(request, ()):
        try:
            window = solve(candidate.chain, request.memory.device_budget_bytes, "truncated").policy.length
        except PlanningError:
            continue
        reaches.append(min(window * candidate.segment_steps, request.sequence.length))
    reply = PLANNER.plan(request)
    window = reply.policy["nodes"][0][1]
    assert min(window * reply.segment_steps, request.sequence.length) == max(reaches)
    assert reply.exact_gradient == (max(reaches) == request.sequence.length)


def test_where_a_search_takes_too_many_decisions_auto_stores_states(monkeypatch):
    """A hundred thousand stages whose tapes are large were refused in bytes that hold half of their states"""
    monkeypatch.setattr(search, "MOST_DECISIONS", 20)
    stages = [stage_of(1, 1, 2, 2, 10**6, count=2_500)]
    request = {"model": {"kind": "chain", "stages": stages}, "memory": {"device_budget_bytes": 10**6 + 200}}
    plan = PLANNER.plan(PlanRequest.model_validate(request))
    assert (plan.strategy, plan.exact_gradient) == ("hidden", True)
    assert plan.reason.startswith("too many stages in so little memory to search for decisions")
    monkeypatch.setattr(choice, "MOST_REPLAYED_STAGES", 2_000)
    with pytest.raises(ScheduleTooLong):
        PLANNER.plan(PlanRequest.model_validate(request))
