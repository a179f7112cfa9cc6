"""Sparsified gradients in bytes and costs: bounds that the executor keeps, and cheaper backward passes."""

import dataclasses

import pytest

from planner_service.contract import GradientSparsity as SparsityOnTheWire
from planner_service.memory import candidates_for
from planner_service.memory.sparse_steps import NotSparsified, sparse_stage
from planner_service.memory.sparsity import GradientSparsity
from planner_service.memory.steps import SCALAR_BYTES, StepBytes, segment_stage

torch = pytest.importorskip("torch")

from executor.measure import measure_timeline  # noqa: E402
from executor.sparse import SparsitySpec  # noqa: E402
from tests.executor.sparse.choices import leave_out_with  # noqa: E402
from tests.memory import test_steps  # noqa: E402
from tests.memory.test_steps import Segment, workload_of  # noqa: E402

RULES = {
    "rms": {"rule": "rms"},
    "top": {"rule": "top"},
    "columns": {"rule": "columns", "keep_ratio": 0.5},
    "rows": {"rule": "rows"},
    "mixed": {"rule": "mixed", "row_ratio": 0.9},
    "feedback": {"rule": "columns", "error_feedback": True},
}


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize(
    ("num_layers", "dtype", "steps"), [(1, "float32", 1), (2, "float64", 3), (3, "float32", 12)]
)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_sparse_layers_never_hold_more_than_the_stage_says(cell, num_layers, dtype, steps, rule, monkeypatch):
    leave_out_with(monkeypatch)
    assert_within_the_stage(cell, num_layers, dtype, steps, rule)


@pytest.mark.parametrize(
    ("cell", "sizes", "rule"),
    [
        ("gru", {"INPUT": 150, "HIDDEN": 2, "BATCH": 50}, {"rule": "columns", "keep_ratio": 0.5}),
        ("lstm", {"INPUT": 150, "HIDDEN": 6, "BATCH": 50}, {"rule": "mixed", "row_ratio": 0.9}),
        ("gru", {"INPUT": 2, "HIDDEN": 96, "BATCH": 1}, {"rule": "columns", "share_steps": 1}),
    ],
    ids=["inputs put together", "inputs gathered", "a part of the weights for every stretch"],
)
def test_wide_inputs_and_short_stretches_are_counted(cell, sizes, rule, monkeypatch):
    """The way back took up to 1.6 times of what it was said to"""
    leave_out_with(monkeypatch)
    for name, size in sizes.items():
        monkeypatch.setattr(test_steps, name, size)
    assert_within_the_stage(cell, 1, "float64", 20, rule)


def assert_within_the_stage(cell, num_layers, dtype, steps, rule):
    sparsity = GradientSparsity(**rule)
    workload = dataclasses.replace(
        workload_of(cell, num_layers=num_layers, dtype=dtype), gradient_sparsity=sparsity
    )
    stage = sparse_stage(workload, sparsity, steps)
    segment = Segment(workload, steps, sparsity=SparsitySpec(**rule))
    segment.backward(segment.tape())  # whatever is set up once

    advanced = measure_timeline(segment.advance)
    assert advanced.peak_bytes <= stage.state_bytes + stage.forward_workspace_bytes

    taped = measure_timeline(segment.tape)
    kept_bytes = taped.points[-1].live_bytes
    assert 0.5 * (stage.tape_bytes - steps * SCALAR_BYTES) <= kept_bytes <= stage.tape_bytes
    assert taped.peak_bytes <= stage.tape_bytes + stage.taped_forward_workspace_bytes

    reversed_ = measure_timeline(lambda: segment.backward(taped.result))
    held = 2 * workload.model.parameter_bytes if sparsity.error_feedback else 0  # a line of the ledger
    from_outside = stage.state_bytes + workload.model.parameter_bytes + held
    assert reversed_.peak_bytes <= from_outside + stage.state_bytes + stage.backward_workspace_bytes


def stage_of(workload, **sparsity):
    return sparse_stage(workload, GradientSparsity(**sparsity), 10)


def test_only_products_that_shrink_make_backward_cheaper():
    workload = workload_of("lstm")
    dense = segment_stage(workload, StepBytes(workload), 10)
    assert stage_of(workload, rule="top", keep_ratio=0.01).backward_cost == dense.backward_cost
    assert stage_of(workload, rule="columns", keep_ratio=0.25).backward_cost == 0.25 * dense.backward_cost
    assert stage_of(workload, rule="mixed", keep_ratio=0.125, row_ratio=0.5).backward_cost == (
        dense.backward_cost * (0.125 + 0.5) / 2
    )
    assert stage_of(workload, rule="columns", keep_ratio=0.5, dense_every=4).backward_cost == (
        dense.backward_cost * (0.25 + 0.75 * 0.5)
    )
    assert stage_of(workload, rule="columns", keep_ratio=0.5, error_feedback=True).backward_cost == (
        dense.backward_cost
    )
    assert dense.forward_cost == stage_of(workload, rule="columns").forward_cost


@pytest.mark.parametrize(
    "rule", [{"rule": "columns", "keep_ratio": 0.25}, {"rule": "rows"}, {"rule": "top"}], ids=str
)
def test_the_share_of_backward_products_is_what_the_kernels_count(rule, monkeypatch):
    """The planner's ratio against the MACs that the executor counted, input and hidden of equal size."""
    leave_out_with(monkeypatch)
    module = torch.nn.LSTM(8, 8)
    from executor.sparse import SparseLSTM, rule_named

    sparse = SparseLSTM.from_torch(module, rule=rule_named(rule["rule"], keep_ratio=rule.get("keep_ratio")))
    x = torch.randn(10, 8, 8, requires_grad=True)
    sparse(x)[0].sum().backward()
    record = sparse.end_iteration()
    ran = record.executed_backward_macs / record.dense_backward_macs
    assert ran == pytest.approx(GradientSparsity(**rule).backward_ratio)


def test_job_wire_and_planner_have_the_same_settings():
    """Three records of one rule, on the three sides that may not import each other"""
    of_the_job = {field.name for field in dataclasses.fields(SparsitySpec)} - {"cosine_every"}
    assert of_the_job == {field.name for field in dataclasses.fields(GradientSparsity)}
    assert of_the_job == set(SparsityOnTheWire.model_fields)


@pytest.mark.parametrize("cell", ["rnn", "rev_gru"])
def test_cells_without_a_sparse_kind_are_refused(cell):
    workload = workload_of("lstm")
    model = dataclasses.replace(workload.model, cell_kind=cell)
    sparse = dataclasses.replace(workload, model=model, gradient_sparsity=GradientSparsity(rule="columns"))
    with pytest.raises(NotSparsified, match=cell):
        candidates_for(sparse)
