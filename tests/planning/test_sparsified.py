"""Plans with sparsified gradients: cheaper, inexact everywhere, and never taken for exact ones."""

import pickle

import pytest
from pydantic import ValidationError

from planner_service.contract import ComparisonRequest, FrontierRequest, PlanRequest
from planner_service.contract.jobs import JobRequest
from planner_service.memory import ProfileMismatch
from planner_service.memory.sparse_steps import NotSparsified, UnevenBlocks
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
    ("kind", "hidden_size", "block_size", "columns"),
    [("lstm", 256, 7, 1024), ("gru", 256, 7, 768), ("gru", 10, None, 30), ("gru", 32, 64, 96)],
)
def test_blocks_that_do_not_divide_the_gates_are_refused(kind, hidden_size, block_size, columns):
    """As the executor refuses them; of jobs before they are taken"""
    question = sparse("blocks", **({} if block_size is None else {"block_size": block_size}))
    model = {**MODEL, "kind": kind, "hidden_size": hidden_size}
    with pytest.raises(UnevenBlocks, match=f"{block_size or 16} does not divide the {columns}") as refusal:
        planned({**question, "model": model})
    assert refusal.value.field == "training.gradient_sparsity.block_size"
    assert str(pickle.loads(pickle.dumps(refusal.value))) == str(refusal.value)  # noqa: S301 - made here
    job = {
        "model": {"kind": kind, "hidden_size": hidden_size},
        "sequence": {"length": 20, "batch_size": 2},
        "training": {**question["training"], "iterations": 3},
        "budget": "10%",
    }
    with pytest.raises(UnevenBlocks):
        PLANNER.job_needs(JobRequest.model_validate(job))


def test_blocks_that_divide_the_gates_are_planned():
    assert not planned(sparse("blocks", block_size=64)).exact_gradient  # 128 columns


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
        {"rule": "rms", "threshold": True},
        {"rule": "rms", "threshold": "0.3"},
        {"rule": "top", "keep_ratio": True},
        {"rule": "top", "error_feedback": "yes"},
        {"rule": "top", "error_feedback": 1},
    ],
    ids=str,
)
def test_impossible_rules_are_refused(sparsity):
    with pytest.raises(ValidationError):
        PlanRequest.model_validate({**sparse(**sparsity), **BUDGET})
