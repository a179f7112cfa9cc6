"""Plans with sparsified gradients: cheaper, inexact everywhere, and never taken for exact ones."""

import pytest
from pydantic import ValidationError

from planner_service.contract import ComparisonRequest, FrontierRequest, PlanRequest
from planner_service.memory import ProfileMismatch
from planner_service.memory.sparse_steps import NotSparsified
from planner_service.planning import Planner
from tests.contract.requests import changed
from tests.memory.test_profile import RECORD

PLANNER = Planner(())
MODEL = {"kind": "lstm", "input_size": 8, "hidden_size": 32, "head": {"output_size": 11}}
QUESTION = {"model": MODEL, "sequence": {"length": 60, "batch_size": 4}, "training": {"optimizer": "sgd"}}
BUDGET = {"memory": {"device_budget_bytes": 300_000}}


def sparse(rule="columns", **settings):
    training = {"optimizer": "sgd", "gradient_sparsity": {"rule": rule, **settings}}
    return {**QUESTION, "training": training}


def planned(question, **asked):
    return PLANNER.plan(PlanRequest.model_validate({**question, **BUDGET, **asked}))


def test_a_plan_says_that_its_gradient_is_inexact_and_costs_less():
    exact, found = planned(QUESTION), planned(sparse(keep_ratio=0.25))
    assert exact.exact_gradient
    assert not found.exact_gradient
    assert "sparsified by 'columns': 25% of the backward products run" in found.reason
    assert found.cost.store_all_makespan == 60 * (1 + 2 * 0.25)
    assert found.cost.makespan < exact.cost.makespan
    assert found.memory.projected_peak_bytes <= 300_000
    assert sum(line.bytes for line in found.memory.ledger) == found.memory.projected_peak_bytes
    assert exact.id != found.id


def test_dropping_single_entries_saves_no_time():
    found = planned(sparse("rms", threshold=0.3))
    assert not found.exact_gradient
    assert found.cost.store_all_makespan == planned(QUESTION).cost.store_all_makespan


def test_error_feedback_is_a_line_of_the_ledger():
    found = planned(sparse(error_feedback=True), memory={"device_budget_bytes": 500_000})
    (line,) = (line for line in found.memory.ledger if line.name == "error feedback")
    parameters = (4 * 32 * (8 + 32 + 2) + 11 * 33) * 4
    assert line.bytes == 2 * parameters


def test_comparisons_show_every_row_as_inexact_beside_the_exact_makespan():
    def compared(question):
        return PLANNER.compare(ComparisonRequest.model_validate({**question, **BUDGET}))

    exact, found = compared(QUESTION), compared(sparse("mixed"))
    assert {row.exact_gradient for row in found.at_equal_bytes if row.fits} == {False}
    assert {row.exact_gradient for row in found.at_equal_time if row.fits} == {False}
    assert found.exact_makespan == exact.reference_makespan
    assert exact.exact_makespan is None
    assert found.reference_makespan < found.exact_makespan


def test_frontiers_are_inexact_too():
    found = PLANNER.frontier(FrontierRequest.model_validate({**sparse(), "points": 3}))
    assert not found.exact_gradient
    assert PLANNER.frontier(FrontierRequest.model_validate({**QUESTION, "points": 3})).exact_gradient


def test_a_profile_counts_only_for_the_rule_that_it_was_measured_with():
    profiled = {key: RECORD[key] for key in ("input_size", "hidden_size", "num_layers", "dtype")}
    question = {
        "model": {"kind": RECORD["cell"], **profiled},
        "sequence": {"length": RECORD["sequence_length"], "batch_size": RECORD["batch_size"]},
        "training": {"optimizer": "sgd", "gradient_sparsity": {"rule": "top"}},
        "profile": RECORD,
        "memory": {"device_budget_bytes": 10**9},
    }
    with pytest.raises(ProfileMismatch, match="gradient_sparsity=None where"):
        PLANNER.plan(PlanRequest.model_validate(question))


def test_only_lstm_and_gru_can_be_sparsified():
    with pytest.raises(NotSparsified) as refusal:
        planned(changed(sparse(), "model", "kind", to="rnn"))
    assert refusal.value.field == "training.gradient_sparsity"


@pytest.mark.parametrize(
    "sparsity",
    [
        {"rule": "rms", "threshold": -1},
        {"rule": "rms", "threshold": float("nan")},
        {"rule": "absolute"},
        {"rule": "top", "keep_ratio": 0},
        {"rule": "top", "threshold": 0.1},
        {"rule": "columns", "block_size": 4},
        {"rule": "mixed", "error_feedback": True},
        {"rule": "columns", "dense_every": 1},
        {"rule": "none"},
    ],
    ids=str,
)
def test_impossible_rules_are_refused(sparsity):
    with pytest.raises(ValidationError):
        PlanRequest.model_validate({**sparse(**sparsity), **BUDGET})
