"""Reversible cells over the wire: plans that add up, comparisons, frontiers, refusals."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from planner_service.chain import action_from_record, policy_from_record, simulate
from planner_service.contract import (
    ComparisonRequest,
    FrontierRequest,
    PlanReply,
    PlanRequest,
    SimulationRequest,
)
from planner_service.contract.jobs import JobRequest
from planner_service.planning import Planner
from planner_service.planning.candidates import candidates_of
from planner_service.planning.job_needs import job_needs
from planner_service.solvers import NotReversible, UnknownStrategy
from tests.contract.requests import CHAIN, changed

PLANNER = Planner(())
QUESTION = {
    "model": {
        "kind": "rev_gru", "input_size": 6, "hidden_size": 32, "forget_bits": 3,
        "head": {"output_size": 11}, "embedding": {"vocabulary_size": 11},
    },
    "sequence": {"length": 300, "batch_size": 8},
}  # fmt: skip
KINDS = ("rev_gru", "rev_lstm", "nf_rev_gru", "nf_rev_lstm")


def request(kind="rev_gru", budget_bytes="400KiB", **fields):
    limit = {} if kind.startswith("nf_") else {"forget_bits": 3}
    model = {name: value for name, value in QUESTION["model"].items() if name != "forget_bits"}
    memory = {"device_budget_bytes": budget_bytes}
    return {**QUESTION, "model": {**model, "kind": kind, **limit}, "memory": memory, **fields}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strategy", ["reversible", "auto"])
def test_a_plan_fits_adds_up_and_is_what_the_simulator_says(kind, strategy):
    """Ledger, schedule and policy of the reply against a replay of the chain that was planned"""
    asked = PlanRequest.model_validate(request(kind, strategy=strategy))
    reply = PLANNER.plan(asked)
    assert PlanReply.model_validate_json(reply.model_dump_json()) == reply
    candidate = next(c for c in candidates_of(asked, ()) if c.segment_steps == reply.segment_steps)
    schedule = [action_from_record(record) for record in PLANNER.schedule(reply)]
    verdict = simulate(candidate.chain, schedule, asked.memory.device_budget_bytes)
    assert verdict.legal
    assert verdict.makespan == reply.cost.makespan
    assert verdict.undo_count == reply.cost.undo_count
    assert verdict.undo_count + verdict.tape_count == reply.segment_count
    assert verdict.peak_bytes == reply.memory.projected_peak_bytes <= asked.memory.device_budget_bytes
    assert sum(line.bytes for line in reply.memory.ledger) == reply.memory.projected_peak_bytes
    assert policy_from_record(reply.policy).length == reply.segment_count
    assert reply.exact_gradient
    lines = {line.name: line for line in reply.memory.ledger}
    if reply.cost.undo_count and not kind.startswith("nf_"):
        assert lines["archive"].exactness == "bound"
        assert lines["archive: begun words and blocks"].bytes
    if kind.startswith("nf_"):
        assert not any("archive" in name for name in lines)


def test_the_ledger_counts_states_and_archive_by_the_unit():
    """16 bytes a unit of h; n bits a unit and step, with distinct numbers: 1 layer, batch 8, hidden 32"""
    question = PlanRequest.model_validate(request())
    chain = next(c for c in candidates_of(question, ()) if c.segment_steps == 10).chain
    stage = chain.stage(1)
    units = 8 * 32
    assert stage.state_bytes == chain.input_bytes == 16 * units
    assert stage.reversal.archive_bytes == -(
        -units * 10 * 30001 // 80000
    )  # 3.0001 bits, in bytes, rounded up
    two = PlanRequest.model_validate(request("nf_rev_lstm"))
    never = next(c for c in candidates_of(two, ()) if c.segment_steps == 10).chain.stage(1)
    assert never.state_bytes == 8 * 2 * units
    assert never.reversal.archive_bytes == 0


def test_reversal_stands_beside_checkpointing_of_the_same_cell_at_equal_bytes():
    """Cheaper than each of them where tapes are scarce; auto takes it"""
    asked = ComparisonRequest.model_validate(request())
    rows = {row.strategy: row for row in PLANNER.compare(asked).at_equal_bytes}
    mine = rows.pop("reversible")
    assert mine.fits
    assert mine.exact_gradient
    others = [row for row in rows.values() if row.fits and row.exact_gradient]
    assert others
    assert all(mine.makespan < row.makespan for row in others)
    assert PLANNER.plan(PlanRequest.model_validate(request())).strategy == "reversible"


def test_the_frontier_is_never_above_checkpointing_alone():
    """Each point is what auto plans, undoing included"""
    asked = FrontierRequest.model_validate({**QUESTION, "points": 6})
    reply = PLANNER.frontier(asked)
    makespans = [point.makespan for point in reply.points]
    assert makespans == sorted(makespans, reverse=True)
    assert reply.points[-1].makespan == reply.store_all_makespan
    for point in reply.points[1:-1]:
        alone = PLANNER.plan(
            PlanRequest.model_validate(request(budget_bytes=point.budget_bytes, strategy="optimal"))
        )
        assert point.makespan <= alone.cost.makespan * 1.001


FOUND = [
    {
        "stages": [
            {
                "count": 20,
                "forward_cost": 1,
                "taped_forward_cost": 1,
                "backward_cost": 2,
                "state_bytes": 4,
                "tape_bytes": 16,
                "reversal": {"archive_bytes": 1, "undo_cost": 1.5, "undo_workspace_bytes": 16},
            }
        ]
    },
    {
        "stages": [
            {
                "count": 5,
                "forward_cost": 3,
                "taped_forward_cost": 1,
                "backward_cost": 3,
                "state_bytes": 4,
                "tape_bytes": 37,
                "backward_workspace_bytes": 5,
                "reversal": {
                    "archive_bytes": 0,
                    "undo_cost": 1,
                    "undo_workspace_bytes": 32,
                    "archive_workspace_bytes": 19,
                },
            }
        ],
        "input_bytes": 8,
        "static_bytes": 5,
        "input_gradient_bytes": 1,
    },
]
"""Chains whose frontiers had points that did not hold: below the least budget, or with a slower plan."""


@pytest.mark.parametrize("chain", FOUND)
@pytest.mark.parametrize("ratio", [0, 0.3])
def test_every_point_of_a_frontier_is_what_its_budget_buys(chain, ratio):
    """And the search for the leanest plan that is quick enough begins from such points"""
    model = {"kind": "chain", **chain}
    asked = FrontierRequest.model_validate({"model": model, "points": 40, "at_most_overhead_ratio": ratio})
    reply = PLANNER.frontier(asked)
    for point in [*reply.points, reply.least_bytes]:
        memory = {"device_budget_bytes": point.budget_bytes}
        plan = PLANNER.plan(PlanRequest.model_validate({"model": model, "memory": memory}))
        assert plan.cost.makespan == point.makespan
        assert plan.memory.minimum_budget_bytes == reply.minimum_budget_bytes
    assert reply.points[0].budget_bytes == reply.minimum_budget_bytes


def test_other_models_do_not_list_it_and_refuse_it():
    """A torch cell cannot be undone"""
    asked = {**QUESTION, "model": {"kind": "gru", "input_size": 6, "hidden_size": 32},
             "memory": {"device_budget_bytes": "4MiB"}}  # fmt: skip
    rows = PLANNER.compare(ComparisonRequest.model_validate(asked)).at_equal_bytes
    assert "reversible" not in {row.strategy for row in rows}
    with pytest.raises(NotReversible, match="rev_gru"):
        PLANNER.plan(PlanRequest.model_validate({**asked, "strategy": "reversible"}))


def test_a_given_chain_with_reversals_is_planned_and_simulated():
    """The wire carries a reversal, its actions and its policy"""
    reversal = {"archive_bytes": 1, "undo_cost": 2, "undo_workspace_bytes": 8}
    chain = changed(
        changed(CHAIN, "model", "stages", 0, "count", to=40), "model", "stages", 0, "reversal", to=reversal
    )
    plan = PLANNER.plan(PlanRequest.model_validate({**chain, "memory": {"device_budget_bytes": 70}}))
    assert plan.strategy == "reversible"
    judged = PLANNER.simulate(
        SimulationRequest.model_validate({"model": chain["model"], "policy": plan.policy})
    )
    assert judged.legal
    assert (judged.makespan, judged.undo_count) == (plan.cost.makespan, plan.cost.undo_count)


def test_the_segment_length_can_be_chosen():
    """As a number of steps computed at once"""
    fields = {**request(), "model": {**request()["model"], "segment_steps": 5}}
    assert PLANNER.plan(PlanRequest.model_validate(fields)).segment_steps == 5


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"hidden_size": 33}, "must be even"),
        ({"forget_bits": 0}, "greater than or equal to 1"),
        ({"forget_bits": 11}, "less than or equal to 10"),
        ({"forget_bits": 2.5}, "valid integer"),
        ({"dtype": "bfloat16"}, "float32"),
        ({"coding": "huffman"}, "entropy"),
        ({"kind": "nf_rev_gru"}, "never forgets"),
        ({"implementation": "fused"}, "Extra inputs"),
    ],
)
def test_models_out_of_range_are_refused_with_the_reason(fields, reason):
    """Odd sizes, bits out of 1..10, other types"""
    with pytest.raises(ValidationError, match=reason):
        PlanRequest.model_validate({**request(), "model": {**request()["model"], **fields}})


def test_jobs_take_reversible_cells():
    """Their needs are those of the cell; the strategy is known for them alone"""
    job = {
        "model": {"kind": "rev_lstm", "hidden_size": 16, "forget_bits": None},
        "sequence": {"length": 200, "batch_size": 4},
        "training": {"iterations": 1},
        "budget": "1MiB",
        "strategy": "reversible",
    }
    asked = JobRequest.model_validate(job)
    assert JobRequest.model_validate_json(asked.model_dump_json()) == asked
    assert job_needs(asked, ()).cpu.least_bytes > 0
    plain = JobRequest.model_validate({**job, "model": {"kind": "lstm", "hidden_size": 16}})
    assert "forget_bits" not in plain.model_dump_json()
    with pytest.raises(UnknownStrategy):
        job_needs(plain, ())
    for wrong in ({"hidden_size": 15}, {"dtype": "float16"}):
        with pytest.raises(ValidationError):
            JobRequest.model_validate({**job, "model": {**job["model"], **wrong}})
