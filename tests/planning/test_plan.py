"""The use case plan: every answer fits, adds up and is the cheapest over all segment lengths."""

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_service.chain import (
    BudgetTooSmall,
    InvalidChain,
    PlanningError,
    action_from_record,
    expand,
    policy_from_record,
    simulate,
)
from planner_service.contract import PlanRequest
from planner_service.memory import ProfileMismatch, ProfileNeeded
from planner_service.planning import PLANNER_VERSION, Planner
from planner_service.planning.candidates import candidates_of
from planner_service.solvers import Cancellation, Cancelled, UnknownStrategy, solve
from tests.contract.requests import CHAIN, LSTM, changed
from tests.memory.test_profile import RECORD

SMALL = {
    "model": {"kind": "gru", "input_size": 5, "hidden_size": 13, "head": {"output_size": 11}},
    "sequence": {"length": 23, "batch_size": 7},
    "training": {"optimizer": "momentum"},
    "memory": {"device_budget_bytes": 10**9},
}


def plan(request):
    return Planner(()).plan(PlanRequest.model_validate(request))


def with_budget(request, budget_bytes):
    return changed(request, "memory", "device_budget_bytes", to=budget_bytes)


def chain_of(request, reply):
    candidates = candidates_of(PlanRequest.model_validate(request), ())
    return next(c.chain for c in candidates if c.segment_steps == reply.segment_steps)


def least(request):
    return plan(with_budget(request, 2**60)).memory.minimum_budget_bytes


@pytest.mark.parametrize("request_", [SMALL, CHAIN, LSTM], ids=["gru", "chain", "lstm"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_projected_numbers_are_the_simulators_and_the_ledger_adds_up(request_, share):
    low, high = least(request_), plan(with_budget(request_, 2**60)).memory.store_all_peak_bytes
    budget = low + int(share * (high - low))
    reply = plan(with_budget(request_, budget))
    verdict = simulate(chain_of(request_, reply), expand(policy_from_record(reply.policy)), budget)
    assert verdict.legal
    assert reply.memory.projected_peak_bytes == verdict.peak_bytes <= budget
    assert reply.cost.makespan == verdict.makespan >= reply.cost.lower_bound
    assert (reply.cost.advance_count, reply.cost.tape_count) == (verdict.advance_count, verdict.tape_count)
    assert sum(line.bytes for line in reply.memory.ledger) == verdict.peak_bytes
    assert all(line.bytes >= 0 and line.formula for line in reply.memory.ledger)
    assert reply.exact_gradient


@pytest.mark.parametrize("request_", [SMALL, CHAIN, LSTM], ids=["gru", "chain", "lstm"])
def test_the_minimum_works_and_one_byte_less_is_refused_with_it(request_):
    minimum = least(request_)
    assert plan(with_budget(request_, minimum)).memory.projected_peak_bytes <= minimum
    for budget in (minimum - 1, 1):
        with pytest.raises(BudgetTooSmall) as refusal:
            plan(with_budget(request_, budget))
        assert refusal.value.minimum_budget_bytes == minimum


@given(share=st.floats(0, 1.05))
def test_the_segment_length_is_the_cheapest_of_all(share):
    """Every candidate is solved here, one by one: none is cheaper, none as cheap and leaner."""
    low, high = least(SMALL), plan(SMALL).memory.store_all_peak_bytes
    budget = low + int(share * (high - low))
    reply = plan(with_budget(SMALL, budget))
    ranks = []
    for candidate in candidates_of(PlanRequest.model_validate(SMALL), ()):
        try:
            verdict = solve(candidate.chain, budget).verdict
        except BudgetTooSmall:
            continue
        ranks.append((verdict.makespan, verdict.peak_bytes))
    assert (reply.cost.makespan, reply.memory.projected_peak_bytes) == min(ranks)


def test_a_larger_budget_never_costs_more():
    low, high = least(SMALL), plan(SMALL).memory.store_all_peak_bytes
    makespans = [
        plan(with_budget(SMALL, low + step * (high - low) // 20)).cost.makespan for step in range(21)
    ]
    assert makespans == sorted(makespans, reverse=True)
    assert makespans[-1] == 3 * 23


def test_enough_memory_means_full_bptt():
    reply = plan(SMALL)
    assert reply.cost.overhead_ratio == 0
    assert reply.cost.makespan == reply.cost.store_all_makespan == 3 * 23
    assert reply.cost.advance_count == 0


def test_the_schedule_is_the_policys_and_survives_json():
    planner, request = Planner(()), PlanRequest.model_validate(CHAIN)
    reply = planner.plan(request)
    records = [json.loads(json.dumps(record)) for record in planner.schedule(reply)]
    actions = [action_from_record(record) for record in records]
    assert simulate(request.model.chain(), actions, 250).makespan == reply.cost.makespan


def test_plans_are_deterministic_and_named_before_they_are_made():
    request = PlanRequest.model_validate(CHAIN)
    planner = Planner(())
    first, second = planner.plan(request), Planner(()).plan(request)
    assert first == second
    assert first.id == planner.plan_id(request)
    assert first.planner_version == PLANNER_VERSION


def test_reserved_bytes_count_against_the_budget():
    minimum = least(CHAIN)
    reserved = changed(CHAIN, "memory", "reserved_bytes", to=1009)
    assert least(reserved) == minimum + 1009


@pytest.mark.parametrize("strategy", ["store_all", "every_k", "sqrt", "optimal"])
def test_a_named_strategy_is_used(strategy):
    reply = plan(changed(with_budget(SMALL, 10**9), "strategy", to=strategy))
    assert reply.strategy == strategy


def test_a_truncated_plan_is_flagged_and_its_ledger_adds_up():
    minimum = least(SMALL)
    reply = plan(changed(with_budget(SMALL, minimum + 5000), "strategy", to="truncated"))
    assert not reply.exact_gradient
    assert sum(line.bytes for line in reply.memory.ledger) == reply.memory.projected_peak_bytes


@pytest.mark.parametrize("full", [0, 1e-300])
def test_an_overhead_is_a_number_whatever_full_bptt_costs(full):
    """JSON has no infinity, and what costs something where full BPTT costs nothing is no overhead of 0"""
    costs = {"forward_cost": 1e100, "taped_forward_cost": full, "backward_cost": 0}
    request = changed(CHAIN, "model", "stages", 0, to=CHAIN["model"]["stages"][0] | costs | {"count": 50})
    cost = plan(with_budget(request, 20)).cost
    assert cost.makespan > 1e101
    assert cost.overhead_ratio == sys.float_info.max


def test_an_unknown_strategy_is_refused_by_name():
    with pytest.raises(UnknownStrategy, match="fastest") as refusal:
        plan(changed(SMALL, "strategy", to="fastest"))
    assert refusal.value.field == "strategy"


def test_an_inline_profile_gives_seconds_and_its_own_segment_lengths():
    request = {
        "model": {"kind": "lstm", "input_size": 5, "hidden_size": 13},
        "sequence": {"length": 23, "batch_size": 7},
        "training": {"optimizer": "sgd", "loss": "inside"},
        "memory": {"device_budget_bytes": "1MiB"},
        "profile": RECORD,
    }
    reply = plan(request)
    assert reply.cost.unit == "seconds"
    assert (reply.segment_steps, reply.last_segment_steps, reply.segment_count) == (23, 23, 1)
    assert reply.cost.store_all_makespan == 1.5
    smaller = plan(with_budget(request, reply.memory.minimum_budget_bytes))
    assert smaller.segment_steps in {10, 23}
    with pytest.raises(ProfileMismatch):
        plan(changed(request, "model", "hidden_size", to=17))


def test_a_fused_model_without_a_profile_is_refused():
    with pytest.raises(ProfileNeeded):
        plan(changed(SMALL, "model", "implementation", to="fused"))


def test_sizes_beyond_the_range_are_refused_as_the_models():
    with pytest.raises(InvalidChain) as refusal:
        plan(changed(SMALL, "model", "hidden_size", to=10**12))
    assert refusal.value.field == "model"


def test_a_cancelled_plan_stops():
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(Cancelled):
        Planner(()).plan(PlanRequest.model_validate(CHAIN), cancellation)


def test_every_refusal_is_a_planning_error():
    for refusal in (BudgetTooSmall, UnknownStrategy, InvalidChain, ProfileMismatch, ProfileNeeded, Cancelled):
        assert issubclass(refusal, PlanningError)
