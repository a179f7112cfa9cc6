"""The use case simulate: strangers' schedules get the simulator's own judgement."""

import json

import pytest

from planner_service.chain import InvalidChain, action_record, expand, policy_from_record, simulate
from planner_service.contract import PlanRequest, SimulationRequest
from planner_service.planning import Planner
from planner_service.planning.candidates import UnknownSegmentLength
from planner_service.planning.schedules import InvalidSchedule, ScheduleTooLong, action_count
from planner_service.solvers import Cancellation, Cancelled
from tests.contract.requests import CHAIN, changed
from tests.planning.test_plan import SMALL

MODEL = changed(CHAIN, "model", "stages", 0, "count", to=40)["model"]
PLANNER = Planner(())


def judged(**fields):
    return PLANNER.simulate(SimulationRequest.model_validate({"model": MODEL, **fields}))


def planned():
    request = PlanRequest.model_validate({"model": MODEL, "memory": {"device_budget_bytes": 30}})
    return request.model.chain(), PLANNER.plan(request)


def test_a_plans_policy_gets_the_numbers_of_the_plan():
    _, reply = planned()
    judgement = judged(policy=reply.policy, memory={"device_budget_bytes": 30})
    assert judgement.legal
    assert judgement.makespan == reply.cost.makespan
    assert judgement.peak_bytes == reply.memory.projected_peak_bytes
    assert judgement.overhead_ratio == reply.cost.overhead_ratio


def test_a_schedule_and_its_policy_are_judged_alike():
    _, reply = planned()
    records = [json.loads(json.dumps(record)) for record in PLANNER.schedule(reply)]
    assert judged(schedule=records) == judged(policy=reply.policy)


def test_the_first_illegal_action_is_named_with_its_reason():
    judgement = judged(
        schedule=[
            {"action": "tape", "first": 1, "last": 40},
            {"action": "backward", "first": 39, "last": 1},
        ]
    )
    assert not judgement.legal
    assert judgement.illegal.index == 1
    assert judgement.illegal.action == {"action": "backward", "first": 39, "last": 1}
    assert "x_39" in judgement.illegal.reason
    assert judgement.makespan == 40
    assert len(judgement.timeline) == 1


def test_an_unfinished_schedule_is_illegal_at_its_end():
    judgement = judged(schedule=[{"action": "tape", "first": 1, "last": 40}])
    assert (judgement.illegal.index, judgement.illegal.action) == (1, None)


def test_one_byte_below_the_peak_is_illegal():
    _, reply = planned()
    peak = judged(policy=reply.policy).peak_bytes
    assert judged(policy=reply.policy, memory={"device_budget_bytes": peak}).legal
    tight = judged(policy=reply.policy, memory={"device_budget_bytes": peak - 1})
    assert "1 over the budget" in tight.illegal.reason


@pytest.mark.parametrize("points", [1, 2, 7, 1000])
def test_a_thinned_timeline_keeps_the_peak_and_the_end(points):
    chain, reply = planned()
    judgement = judged(policy=reply.policy, timeline_points=points)
    verdict = simulate(chain, expand(policy_from_record(reply.policy)))
    assert len(judgement.timeline) <= points
    assert max(point.peak_bytes for point in judgement.timeline) == verdict.peak_bytes
    assert judgement.timeline[-1].elapsed_cost == verdict.makespan
    assert judgement.timeline[-1].index == verdict.action_count - 1
    assert judgement.timeline[-1].live_bytes == 0


def test_no_timeline_when_none_is_asked_for():
    assert judged(policy=planned()[1].policy, timeline_points=0).timeline == []


def test_a_recurrent_models_policy_is_judged_in_its_segments():
    reply = PLANNER.plan(PlanRequest.model_validate(SMALL))
    question = {name: SMALL[name] for name in ("model", "sequence", "training")}
    request = {**question, "policy": reply.policy, "segment_steps": reply.segment_steps}
    judgement = PLANNER.simulate(SimulationRequest.model_validate(request))
    assert judgement.peak_bytes == reply.memory.projected_peak_bytes
    with pytest.raises(UnknownSegmentLength, match="1, 2, 5, 10, 20"):
        PLANNER.simulate(SimulationRequest.model_validate({**request, "segment_steps": 3}))


@pytest.mark.parametrize(
    "record",
    [{}, {"action": "jump"}, {"action": "free"}, {"action": "tape", "first": "1", "last": 2}, {"first": 1}],
)
def test_what_is_no_action_is_refused_by_position(record):
    first = {"action": "tape", "first": 1, "last": 1}
    with pytest.raises(InvalidSchedule) as refusal:
        judged(schedule=[first, record])
    assert refusal.value.field == "schedule[1]"


def test_a_policy_of_another_length_is_refused():
    with pytest.raises(InvalidChain, match="2 stages of a chain of 40") as refusal:
        judged(policy={"root": 0, "nodes": [["tape", 2, -1]]})
    assert refusal.value.field == "policy"


def doubling_policy(levels):
    """Every node covers twice as much as the one before: a short record of a very long schedule."""
    nodes = [["tape", 1, -1]] + [["checkpoint", 2**level, level, level] for level in range(levels)]
    return {"root": levels, "nodes": nodes}


def test_the_length_of_a_schedule_is_known_without_expanding_it():
    policy = policy_from_record(doubling_policy(6))
    assert action_count(policy) == len([action_record(action) for action in expand(policy)])


def test_a_short_policy_of_a_huge_schedule_is_refused():
    model = changed({"model": MODEL}, "model", "stages", 0, "count", to=2**35)["model"]
    with pytest.raises(ScheduleTooLong):
        judged(model=model, policy=doubling_policy(35))


def test_a_cancelled_judgement_stops():
    cancellation = Cancellation()
    cancellation.cancel()
    request = SimulationRequest.model_validate({"model": MODEL, "policy": planned()[1].policy})
    with pytest.raises(Cancelled):
        PLANNER.simulate(request, cancellation)
