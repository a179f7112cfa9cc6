"""Plans with storage tiers: they fit everywhere, their numbers are the simulator's, and auto chooses well."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner_service.chain import (
    BudgetTooSmall,
    Chain,
    Stage,
    StageRun,
    Tier,
    simulate_tiers,
    tiered_action_from_record,
)
from planner_service.contract import ComparisonRequest, PlanRequest, SimulationRequest, tiers_of
from planner_service.planning import Planner, choice
from planner_service.planning.candidates import candidates_of
from planner_service.planning.tiered import solve_beside
from planner_service.solvers import STRATEGIES, UnknownStrategy
from planner_service.solvers.offload.search import ChainTooLong
from tests.contract.requests import CHAIN, changed
from tests.planning.test_plan import SMALL, least, with_budget

PLANNER = Planner(())
HOST = {"name": "host", "budget_bytes": 12, "write_seconds_per_byte": 1, "read_seconds_per_byte": 1}
DISK = {
    "name": "disk",
    "budget_bytes": 1000,
    "write_seconds_per_byte": 0.25,
    "read_latency_seconds": 0.5,
    "overlapped": False,
}
SHORT = changed(with_budget(CHAIN, 14), "model", "stages", 0, "count", to=30)
CASES = {
    "host": [HOST],
    "disk": [DISK],
    "host and disk": [HOST, DISK],
    "slow": [{**HOST, "write_seconds_per_byte": 3}],
}


def with_tiers(request, *tiers, strategy="auto"):
    return changed(changed(request, "memory", "tiers", to=list(tiers)), "strategy", to=strategy)


def planned(request):
    return PLANNER.plan(PlanRequest.model_validate(request))


def replayed(request, reply):
    """The verdict of the streamed schedule, on the chain that was planned."""
    question = PlanRequest.model_validate(request)
    chain = next(c.chain for c in candidates_of(question, ()) if c.segment_steps == reply.segment_steps)
    records = [json.loads(json.dumps(record)) for record in PLANNER.schedule(reply)]
    actions = [tiered_action_from_record(record) for record in records]
    return simulate_tiers(chain, tiers_of(question.memory.tiers), actions, reply.memory.budget_bytes)


def small(share):
    """The small GRU at `share` of what lies between its least budget and full BPTT."""
    low, high = least(SMALL), planned(SMALL).memory.store_all_peak_bytes
    return with_budget(SMALL, low + int(share * (high - low)))


@pytest.mark.parametrize("strategy", ["auto", "offload"])
@pytest.mark.parametrize("tiers", CASES.values(), ids=CASES)
def test_the_schedule_replays_to_the_plans_own_numbers(tiers, strategy):
    request = with_tiers(SHORT, *tiers, strategy=strategy)
    reply = planned(request)
    verdict = replayed(request, reply)
    assert verdict.legal
    assert reply.cost.makespan == verdict.makespan >= reply.cost.lower_bound
    assert reply.memory.projected_peak_bytes == verdict.peak_bytes <= 14
    assert reply.cost.stall_seconds == pytest.approx(verdict.stall_seconds)
    assert (reply.cost.advance_count, reply.cost.tape_count) == (verdict.advance_count, verdict.tape_count)
    assert reply.strategy == "offload"
    for use, seen, tier in zip(reply.memory.tiers, verdict.tiers, tiers, strict=True):
        assert (use.name, use.peak_bytes) == (seen.name, seen.peak_bytes)
        assert (use.write_count, use.read_bytes) == (seen.write_count, seen.read_bytes)
        assert use.peak_bytes <= use.budget_bytes == tier["budget_bytes"]
    assert sum(use.write_count for use in reply.memory.tiers) > 0


@pytest.mark.parametrize("budget_bytes", [7, 8, 11, 14, 40])
@pytest.mark.parametrize("tiers", CASES.values(), ids=CASES)
def test_the_devices_lines_add_up_and_each_tier_has_its_own(tiers, budget_bytes):
    reply = planned(with_tiers(with_budget(SHORT, budget_bytes), *tiers, strategy="offload"))
    ledger = reply.memory.ledger
    on_device = [line.bytes for line in ledger if line.tier is None]
    assert sum(on_device) == reply.memory.projected_peak_bytes
    assert all(line.bytes >= 0 and line.formula for line in ledger)
    held = [(line.tier, line.bytes) for line in ledger if line.tier is not None]
    assert held == [(use.name, use.peak_bytes) for use in reply.memory.tiers]


stages = st.fixed_dictionaries(
    {
        "count": st.integers(1, 4),
        "forward_cost": st.integers(1, 5),
        "taped_forward_cost": st.integers(1, 5),
        "backward_cost": st.integers(1, 5),
        "state_bytes": st.integers(0, 9),
        "tape_bytes": st.integers(0, 20),
        "forward_workspace_bytes": st.integers(0, 9),
        "taped_forward_workspace_bytes": st.integers(0, 9),
        "backward_workspace_bytes": st.integers(0, 9),
    }
)
tiers_drawn = st.fixed_dictionaries(
    {
        "budget_bytes": st.integers(1, 40),
        "write_seconds_per_byte": st.sampled_from([0, 0.1, 1]),
        "read_latency_seconds": st.sampled_from([0, 2]),
        "overlapped": st.booleans(),
    }
)


@settings(max_examples=60)
@given(
    entries=st.lists(stages, min_size=1, max_size=4),
    given_tiers=st.lists(tiers_drawn, min_size=1, max_size=2),
    outside=st.integers(0, 9),
    share=st.floats(0, 1),
)
def test_any_chain_with_any_tiers_fits_and_adds_up(entries, given_tiers, outside, share):
    fixed = {"input_bytes": outside, "static_bytes": outside, "loss_gradient_bytes": outside}
    named = [{**tier, "name": f"tier {index}"} for index, tier in enumerate(given_tiers)]
    memory = {"device_budget_bytes": 10**6, "tiers": named}
    request = {"model": {"kind": "chain", "stages": entries, **fixed}, "memory": memory}
    roomy = planned(request).memory
    spare = roomy.store_all_peak_bytes - roomy.minimum_budget_bytes
    budget = max(1, roomy.minimum_budget_bytes + int(share * spare))
    reply = planned(changed(with_budget(request, budget), "strategy", to="offload"))
    verdict = replayed(with_budget(request, budget), reply)
    assert verdict.legal
    assert reply.cost.makespan == verdict.makespan
    on_device = [line.bytes for line in reply.memory.ledger if line.tier is None]
    assert sum(on_device) == reply.memory.projected_peak_bytes == verdict.peak_bytes
    assert min(on_device) >= 0


def test_a_recurrent_model_is_offloaded_too():
    host = {"name": "host", "budget_bytes": 10**6, "write_seconds_per_byte": 1e-5}
    request = with_tiers(small(0.1), host)
    reply, alone = planned(request), planned(small(0.1))
    assert reply.cost.makespan < alone.cost.makespan
    assert replayed(request, reply).makespan == reply.cost.makespan
    assert "forward passes of a step" in reply.reason


@pytest.mark.parametrize("budget_bytes", [8, 14, 30, 121, 500])
@pytest.mark.parametrize("seconds_per_byte", [0.1, 1.0, 30.0])
def test_auto_with_tiers_is_never_slower_than_without(budget_bytes, seconds_per_byte):
    host = {**HOST, "write_seconds_per_byte": seconds_per_byte}
    request = with_budget(SHORT, budget_bytes)
    assert planned(with_tiers(request, host)).cost.makespan <= planned(request).cost.makespan


@pytest.mark.parametrize(("budget_bytes", "seconds_per_byte"), [(121, 0), (14, 1e6)])
def test_auto_leaves_tiers_alone_that_do_not_pay(budget_bytes, seconds_per_byte):
    """A plan of the device alone is one that every executor understands."""
    host = {**HOST, "write_seconds_per_byte": seconds_per_byte}
    request = with_budget(SHORT, budget_bytes)
    reply, alone = planned(with_tiers(request, host)), planned(request)
    assert reply.strategy == alone.strategy
    assert reply.policy == alone.policy
    assert reply.memory.tiers == []
    assert reply.cost.lower_bound <= reply.cost.makespan == alone.cost.makespan


def test_other_strategies_leave_tiers_alone():
    reply = planned(with_tiers(SHORT, HOST, strategy="optimal"))
    alone = planned(changed(SHORT, "strategy", to="optimal"))
    assert (reply.cost, reply.memory, reply.policy) == (alone.cost, alone.memory, alone.policy)


@pytest.mark.parametrize("tiers", CASES.values(), ids=CASES)
def test_the_minimum_beside_tiers_works_and_one_byte_less_is_refused_with_it(tiers):
    minimum = planned(with_tiers(SHORT, *tiers)).memory.minimum_budget_bytes
    assert minimum <= least(SHORT)
    assert planned(with_tiers(with_budget(SHORT, minimum), *tiers)).memory.projected_peak_bytes <= minimum
    with pytest.raises(BudgetTooSmall) as refusal:
        planned(with_tiers(with_budget(SHORT, minimum - 1), *tiers))
    assert refusal.value.minimum_budget_bytes == minimum


def test_candidates_too_long_for_tiers_are_passed_over_and_the_last_one_refused(monkeypatch):
    request = with_tiers(small(0.5), {**HOST, "budget_bytes": 10**6})
    solve_beside = choice.solve_beside
    longest = 12

    def short_only(chain, *arguments):
        if chain.length > longest:
            raise ChainTooLong(length=chain.length)
        return solve_beside(chain, *arguments)

    monkeypatch.setattr(choice, "solve_beside", short_only)
    assert planned(request).segment_count <= longest
    longest = 0
    with pytest.raises(ChainTooLong) as refusal:
        planned(request)
    assert refusal.value.length == 2  # segments of 20 steps: the shortest of them


def test_an_unknown_strategy_is_told_of_offload():
    with pytest.raises(UnknownStrategy, match="offload"):
        planned(changed(SHORT, "strategy", to="fastest"))


def test_a_comparison_with_tiers_has_a_row_for_offload():
    request = {name: with_tiers(SHORT, HOST)[name] for name in ("model", "memory")}
    reply = PLANNER.compare(ComparisonRequest.model_validate(request))
    for rows in (reply.at_equal_bytes, reply.at_equal_time):
        assert {row.strategy for row in rows} == {*STRATEGIES, "offload"} - {"auto"}
    by_name = {row.strategy: row for row in reply.at_equal_bytes}
    assert by_name["offload"].makespan == reply.reference_makespan < by_name["optimal"].makespan
    in_time = {row.strategy: row for row in reply.at_equal_time}
    assert in_time["offload"].peak_bytes <= 14 < in_time["optimal"].peak_bytes


def judged(**fields):
    return PLANNER.simulate(SimulationRequest.model_validate({"model": SHORT["model"], **fields}))


@pytest.mark.parametrize("tiers", CASES.values(), ids=CASES)
def test_a_simulation_of_the_policy_or_the_schedule_gives_the_plans_numbers(tiers):
    reply = planned(with_tiers(SHORT, *tiers, strategy="offload"))
    memory = {"device_budget_bytes": 14, "tiers": tiers}
    of_policy = judged(policy=reply.policy, memory=memory)
    assert of_policy == judged(schedule=list(PLANNER.schedule(reply)), memory=memory)
    assert of_policy.legal
    assert (of_policy.makespan, of_policy.peak_bytes) == (
        reply.cost.makespan,
        reply.memory.projected_peak_bytes,
    )
    assert of_policy.tiers == reply.memory.tiers
    assert of_policy.stall_seconds == reply.cost.stall_seconds
    assert max(point.peak_bytes for point in of_policy.timeline) == of_policy.peak_bytes
    assert of_policy.timeline[-1].elapsed_cost <= of_policy.makespan


def test_a_tier_one_byte_too_small_makes_the_schedule_illegal():
    reply = planned(with_tiers(SHORT, HOST, strategy="offload"))
    (use,) = reply.memory.tiers
    tight = judged(policy=reply.policy, memory={"tiers": [{**HOST, "budget_bytes": use.peak_bytes - 1}]})
    assert tight.illegal.action["action"] == "store"
    assert "host would hold 1 bytes more than its budget" in tight.illegal.reason


def test_a_slower_link_makes_a_plan_late_but_not_larger():
    reply = planned(with_tiers(SHORT, HOST, strategy="offload"))
    slow = {**HOST, "write_seconds_per_byte": 50, "read_seconds_per_byte": 50}
    judgement = judged(policy=reply.policy, memory={"tiers": [slow], "device_budget_bytes": 14})
    assert judgement.legal
    assert judgement.peak_bytes == reply.memory.projected_peak_bytes
    assert judgement.stall_seconds > 0
    assert judgement.makespan == pytest.approx(
        reply.cost.makespan - reply.cost.stall_seconds + judgement.stall_seconds
    )


def test_auto_plans_a_chain_too_long_for_tiers_on_the_device_alone() -> None:
    """The answer says that tiers were not tried; `offload` asks for them by name."""
    stage = Stage(forward_cost=1, taped_forward_cost=1, backward_cost=2, state_bytes=1, tape_bytes=4)
    chain = Chain((StageRun(20_000, stage),), input_bytes=1)
    plan = solve_beside(chain, 200, "auto", [Tier(name="host", budget_bytes=100)])
    assert plan.strategy == "optimal"
    assert "tiers not tried" in plan.reason
