"""Schedules, error feedback, the books of a training run, and sparse layers under a plan."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from functools import partial

import pytest

torch = pytest.importorskip("torch")

from executor.errors import BudgetTooSmall  # noqa: E402
from executor.jobs.job import InvalidJob, job_from_record  # noqa: E402
from executor.jobs.prepared import PreparedJob  # noqa: E402
from executor.jobs.training import iterate  # noqa: E402
from executor.loop import Loop  # noqa: E402
from executor.measure import measure  # noqa: E402
from executor.plan import checkpoint_every  # noqa: E402
from executor.predict import plan_for  # noqa: E402
from executor.probe import probe_loop  # noqa: E402
from executor.sparse import (  # noqa: E402
    EverythingDropped,
    InvalidSparsity,
    Mixed,
    Schedule,
    SparseAudit,
    SparseGRU,
    SparseLSTM,
    SparsitySpec,
)
from executor.sparse.cosines import PIECE, gradient_cosines, workspace_bytes  # noqa: E402
from executor.unroll import unroll  # noqa: E402
from executor.worker import measured_iteration, planned_counts, run_job  # noqa: E402
from tests.executor.sparse.choices import leave_out_with  # noqa: E402

torch.set_num_threads(1)

STEPS, BATCH, INPUT, HIDDEN = 20, 4, 5, 8
KINDS = pytest.mark.parametrize("kind", [SparseLSTM, SparseGRU])


def loss_of(module, x):
    return module(x)[0].square().sum()


def gradients(module, x):
    return torch.autograd.grad(loss_of(module, x), list(module.parameters()))


def dense_gradients(module, x):
    with module.sparsifier.paused():
        return gradients(module, x)


def all_equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_schedules_say_which_iterations_are_dense():
    schedule = Schedule(warm_up_iterations=3, dense_every=4)
    dense = [iteration for iteration in range(12) if schedule.is_dense(iteration)]
    assert dense == [0, 1, 2, 6, 10]


@pytest.mark.parametrize("options", [{"warm_up_iterations": -1}, {"dense_every": 1}, {"dense_every": 0}])
def test_schedules_out_of_range_are_refused(options):
    with pytest.raises(InvalidSparsity) as refusal:
        Schedule(**options)
    assert refusal.value.field in options


def test_dense_iterations_have_the_dense_gradient():
    module = SparseLSTM(
        INPUT, HIDDEN, rule="top", keep_ratio=0.1, schedule=Schedule(warm_up_iterations=1, dense_every=3)
    )
    x = torch.randn(STEPS, BATCH, INPUT)
    found = [all_equal(gradients(module, x), dense_gradients(module, x)) for _ in range(6)]
    # The dense gradient of an iteration is taken by a call of its own, which begins another iteration: the
    # calls of sparse gradients are iterations 0, 1, 2, …, since what is paused is not counted.
    assert found == [True, False, False, True, False, False]


@KINDS
@pytest.mark.parametrize(
    "rule", [{"rule": "top", "keep_ratio": 0.2}, {"rule": "columns", "keep_ratio": 0.25}]
)
def test_error_feedback_loses_nothing(kind, rule):
    """What an iteration drops is added to the next: on one input, with weights as they are, the sum of two
    consecutive iterations holds one whole gradient of what the rule's own flow gives.
    """
    x = torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64)
    plain = kind(INPUT, HIDDEN, **rule, dtype=torch.float64)
    module = kind(INPUT, HIDDEN, **rule, error_feedback=True, dtype=torch.float64)
    module.load_state_dict(plain.state_dict())
    kept = gradients(plain, x)
    first = gradients(module, x)
    second = gradients(module, x)
    for one, other in zip(first, kept, strict=True):
        torch.testing.assert_close(one, other)
    late = [two - one for one, two in zip(first, second, strict=True)]
    third = gradients(module, x)
    for one, two, three in zip(first, late, third, strict=True):
        torch.testing.assert_close(three, one + two)
    # The biases' gradients are sums over gate gradients: kept and late together are those before dropping.
    assert any(float(part.abs().sum()) > 0 for part in late)


def test_late_and_kept_gradients_of_one_step_are_the_dense_gradient():
    """With a single step nothing flows on, so that what is dropped and what is kept add up exactly."""
    x = torch.randn(1, BATCH, INPUT, dtype=torch.float64)
    module = SparseLSTM(INPUT, HIDDEN, rule="top", keep_ratio=0.3, error_feedback=True, dtype=torch.float64)
    first, second = gradients(module, x), gradients(module, x)
    for found, one, expected in zip(second, first, dense_gradients(module, x), strict=True):
        late = found - one
        torch.testing.assert_close(one + late, expected)


def carrying(**options):
    """A module with error feedback, its inputs, and the gradients that it keeps of an iteration and drops."""
    torch.manual_seed(0)
    module = SparseLSTM(INPUT, HIDDEN, rule="top", error_feedback=True, dtype=torch.float64, **options)
    x = torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64)
    kept, both = gradients(module, x), gradients(module, x)
    module.sparsifier.restart(0)
    return module, x, kept, [two - one for one, two in zip(kept, both, strict=True)]


def assert_are(found, kept, late, times=1):
    for one, part, more in zip(found, kept, late, strict=True):
        torch.testing.assert_close(one, part + times * more)


def test_what_is_late_is_in_the_units_of_the_iteration_that_it_comes_in():
    """Under a GradScaler, whose scale moves"""
    module, x, kept, late = carrying()
    for scale, times in ((64.0, 0), (1024.0, 1), (32.0, 1)):
        module.sparsifier.loss_scale = scale
        found = torch.autograd.grad(scale * loss_of(module, x), list(module.parameters()))
        assert_are([gradient / scale for gradient in found], kept, late, times)


@pytest.mark.parametrize("scale", [0, -1, math.inf, math.nan, "2", True])
def test_a_loss_scale_that_is_none_is_refused(scale):
    with pytest.raises(InvalidSparsity, match="loss_scale"):
        SparseLSTM(INPUT, HIDDEN).sparsifier.loss_scale = scale


@pytest.mark.parametrize("factor", [math.inf, math.nan])
def test_an_iteration_that_overflowed_is_forgotten(factor):
    """Its step is skipped: what was due in it still is, and none of its numbers are carried on"""
    module, x, kept, late = carrying()
    gradients(module, x)
    (factor * loss_of(module, x)).backward()
    assert not all(parameter.grad.isfinite().all() for parameter in module.parameters())
    assert_are(gradients(module, x), kept, late)
    assert_are(gradients(module, x), kept, late)


def test_a_gradient_of_the_inputs_alone_takes_nothing_that_is_due():
    module, x, kept, late = carrying()
    gradients(module, x)
    given = x.clone().requires_grad_()
    torch.autograd.grad(loss_of(module, given), given)
    assert_are(gradients(module, x), kept, late)


def test_frozen_layers_collect_nothing():
    module, x, kept, late = carrying()
    module.requires_grad_(False)
    for _ in range(3):
        loss_of(module, x.clone().requires_grad_()).backward()
    module.requires_grad_(True)
    assert_are(gradients(module, x), kept, late, times=0)


def test_dense_iterations_pay_nothing_for_feedback():
    """They take what is late and drop nothing that would have to be multiplied, or be late in its turn."""
    module = SparseLSTM(INPUT, HIDDEN, 2, rule="top", error_feedback=True, schedule=Schedule(dense_every=2))
    x, found, ratios = torch.randn(STEPS, BATCH, INPUT), [], []
    for _ in range(4):
        found.append(gradients(module, x))
        record = module.end_iteration()
        ratios.append(record.executed_backward_macs / record.dense_backward_macs)
    assert ratios == [ratios[0], 1, ratios[0], 1]
    assert ratios[0] > 1
    assert all_equal(found[2], found[0])  # the first has nothing late, nor has one after a dense one
    assert all_equal(found[3], found[1])
    assert not any(torch.equal(*both) for both in zip(found[1], dense_gradients(module, x), strict=True))


def test_sampling_rules_have_nothing_to_carry_over():
    with pytest.raises(InvalidSparsity, match="samples without bias"):
        SparseLSTM(INPUT, HIDDEN, rule=Mixed(), error_feedback=True)


def test_counts_follow_the_papers_formula():
    """With a gradient for x too, four of six equal products have a gate gradient as an operand."""
    module = SparseLSTM(INPUT, INPUT, rule="top", keep_ratio=0.2)
    x = torch.randn(STEPS, BATCH, INPUT, requires_grad=True)
    loss_of(module, x).backward()
    record = module.end_iteration()
    assert record.sparsity == pytest.approx(0.8, abs=0.01)
    assert record.redundant_ratio == pytest.approx(record.redundant_ratio_by_formula)
    assert record.redundant_ratio_by_formula == pytest.approx(4 / 6 * record.sparsity)
    assert record.saved_ratio == 0
    rows = STEPS * BATCH * 4 * INPUT
    assert record.forward_macs == rows * 2 * INPUT
    assert record.dense_backward_macs == record.executed_backward_macs == rows * 4 * INPUT


def test_zeros_are_counted_entry_by_entry():
    """Sparsity per gate is the share of zeros in the very gate gradients."""
    module = SparseGRU(INPUT, HIDDEN, rule="rms", threshold=0.7)
    x = torch.randn(1, BATCH, INPUT)
    loss_of(module, x).backward()
    record = module.end_iteration()
    assert set(record.gate_sparsity) == {"r", "z", "n"}
    assert 0 < record.sparsity < 1
    assert record.sparsity * 3 * HIDDEN * BATCH == pytest.approx(
        round(record.sparsity * 3 * HIDDEN * BATCH), abs=1e-6
    )


def test_cosines_of_known_gradients():
    dense = [torch.tensor([[1.0, 0], [0, 2], [3, 0], [0, 4]])]
    sparse = [torch.tensor([[1.0, 1], [0, 0], [3, 0], [0, -4]])]
    found = gradient_cosines(sparse, dense, ("i", "f", "g", "o"), iteration=3)
    assert found.gates == pytest.approx({"i": math.sqrt(0.5), "f": 0.0, "g": 1.0, "o": -1.0})
    assert found.whole == pytest.approx((1 + 9 - 16) / math.sqrt(27 * 30))


def test_cosines_take_no_more_than_they_say():
    """Copies of whole gradients in float64 were as large as some budgets"""
    gradients = [torch.randn(12), torch.randn(4 * 64, PIECE // 4)]
    measured = measure(lambda: gradient_cosines(gradients, gradients, "ifgo", iteration=0))
    assert measured.peak_bytes <= workspace_bytes(gradients, gates=4) < gradients[1].nbytes / 10
    assert measured.result.whole == pytest.approx(1)


def test_an_audit_counts_every_iteration_and_compares_some():
    module = SparseLSTM(INPUT, HIDDEN, rule="top", keep_ratio=0.2)
    audit = SparseAudit(module, cosine_every=2)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    x = torch.randn(STEPS, BATCH, INPUT)
    audit.start(iteration=0)

    def loss():
        after, y = module.segment(module.initial_state(BATCH), x)
        return y.square().sum() + 0 * after[0].sum()

    for _ in range(5):
        iterate(loss, optimizer, audit)
    found = audit.measurement()
    assert found["exact_gradient"] is False
    assert [record["iteration"] for record in found["iterations"]] == [0, 1, 2, 3, 4]
    assert [cosine["iteration"] for cosine in found["cosines"]] == [0, 2, 4]
    assert 0.5 < found["least_cosine"] < 1
    assert found["sparsity"] == pytest.approx(0.8, abs=0.01)


def test_cosines_that_are_no_numbers_are_null_and_no_least_one_is_claimed():
    """A run that had diverged told "0.890 or more", and wrote NaN, which is no JSON, into its report."""
    module = SparseLSTM(INPUT, HIDDEN, rule="top", keep_ratio=0.2)
    audit, x = SparseAudit(module, cosine_every=1), torch.randn(STEPS, BATCH, INPUT)

    def loss():
        return module(x)[0].square().sum()

    for factor in (1, math.nan):
        x.mul_(factor)
        iterate(loss, torch.optim.SGD(module.parameters(), lr=0.01), audit)
    found = audit.measurement()
    assert found["least_cosine"] is None
    assert [cosine["whole"] is None for cosine in found["cosines"]] == [False, True]
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("set_to_none", [True, False, None])
def test_a_comparison_is_of_one_iteration_and_leaves_gradients_and_draws_alone(set_to_none):
    """Gradients that stay between the passes were compared with themselves, with a cosine of 1, and trained
    with; and the dense pass had other dropout masks
    """
    torch.manual_seed(1)
    module = SparseLSTM(INPUT, HIDDEN, 2, rule="top", keep_ratio=0.1, dropout=0.5)
    exact = SparseLSTM(INPUT, HIDDEN, 2, rule="absolute", threshold=0.0, dropout=0.5)
    x, cosines = torch.randn(STEPS, BATCH, INPUT), []
    for layers, earlier in ((module, False), (module, True), (exact, True)):
        audit = SparseAudit(layers, cosine_every=1)
        layers.zero_grad()
        torch.manual_seed(2)
        if earlier:
            layers(x.neg())[0].sum().backward()  # a micro-batch before
            layers.end_iteration()
        torch.manual_seed(3)
        audit.compare(lambda layers=layers: loss_of(layers, x))
        if set_to_none is not None:
            layers.zero_grad(set_to_none=set_to_none)
        loss_of(layers, x).backward()
        audit.close()
        cosines.append(audit.cosines[0].whole)
    assert 0.2 < cosines[0] < 0.999
    assert cosines[1] == pytest.approx(cosines[0], abs=1e-4)
    assert cosines[2] == pytest.approx(1, abs=1e-6)


def test_no_step_is_taken_when_everything_was_dropped():
    module = SparseLSTM(INPUT, HIDDEN, rule="absolute", threshold=1e9)
    before = [parameter.clone() for parameter in module.parameters()]
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    audit = SparseAudit(module, cosine_every=0)
    audit.start(iteration=0)
    x = torch.randn(STEPS, BATCH, INPUT)
    with pytest.raises(EverythingDropped):
        iterate(partial(loss_of, module, x), optimizer, audit)
    assert all_equal(list(module.parameters()), before)


@KINDS
def test_under_a_plan_the_gradient_is_that_of_the_same_segments_without_one(kind):
    """Recomputation changes nothing: the rule sees each segment's gate gradients once."""
    module = kind(INPUT, HIDDEN, 2, rule="rms", threshold=0.5, dtype=torch.float64)
    x = torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64)

    def planned():
        y, _ = unroll(
            None,
            module.initial_state(BATCH),
            x,
            segment=module.segment,
            module=module,
            plan=checkpoint_every(STEPS, 4, 2),
        )
        return y

    def plain():
        state, outputs = module.initial_state(BATCH), []
        for start in range(0, STEPS, 4):
            state, y = module.segment(state, x[start : start + 4])
            outputs.append(y)
        return torch.cat(outputs)

    found, expected = (
        torch.autograd.grad(run().square().sum(), list(module.parameters())) for run in (planned, plain)
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_unroll_keeps_a_budget_with_sparse_layers():
    module = SparseLSTM(16, 32, rule="columns", keep_ratio=0.25)
    x = torch.randn(60, 8, 16)

    def run(budget):
        y, _ = unroll(
            None,
            module.initial_state(8),
            x,
            segment=module.segment,
            module=module,
            budget=budget,
            reduce="last",
            final_state="detached",
        )
        y.sum().backward()  # no tensors of the caller's own

    budget_bytes = 250_000
    run(budget_bytes)
    assert measure(partial(run, budget_bytes)).peak_bytes <= budget_bytes
    assert measure(lambda: module(x)[0].sum().backward()).peak_bytes > 2 * budget_bytes


def planned_iterations(module, iterations, **how):
    """The gradients of each iteration and its counts, of the loop that `unroll` runs."""
    torch.manual_seed(0)
    x, found = torch.randn(STEPS, BATCH, INPUT), []
    for _ in range(iterations):
        module.zero_grad()
        how = {"segment": module.segment, "module": module, **how}
        unroll(None, module.initial_state(BATCH), x, **how)[0].mean().backward()
        record = module.end_iteration()
        found.append(([p.grad.clone() for p in module.parameters()], record))
    return found


@KINDS
@pytest.mark.parametrize(
    "options", [{"rule": "top", "keep_ratio": 0.2, "error_feedback": True}, {"rule": "mixed"}], ids=str
)
def test_a_probe_counts_draws_and_carries_over_nothing(kind, options, monkeypatch):
    """With the budget's own plan from the start, there is no probe, and every bit and count is the same."""
    leave_out_with(monkeypatch)
    torch.manual_seed(0)
    module = kind(INPUT, HIDDEN, **options, schedule=Schedule(dense_every=3))
    again = copy.deepcopy(module)
    probed = planned_iterations(module, 4, budget="10MiB")
    x = torch.randn(STEPS, BATCH, INPUT)
    loop = Loop.of(None, module.initial_state(BATCH), x, segment=module.segment)
    plain = planned_iterations(again, 4, plan=plan_for(loop, "10MiB"))
    for (found, record), (expected, expected_record) in zip(probed, plain, strict=True):
        assert all_equal(found, expected)
        assert record == expected_record


def test_a_rule_that_drops_everything_is_refused_under_a_budget_too():
    """What the probe's own gradients, which are ones, left must not pass for the loss's."""
    module = SparseLSTM(INPUT, HIDDEN, rule="absolute", threshold=1e-2)
    with pytest.raises(EverythingDropped):
        planned_iterations(module, 1, budget="10MiB")


def test_a_probe_in_a_dense_iteration_takes_the_bytes_of_sparse_ones():
    """The plan is made once, and is to hold for all iterations of the schedule."""

    def peak(**options):
        module = SparseLSTM(INPUT, 64, rule="top", error_feedback=True, **options)
        x = torch.randn(STEPS, BATCH, INPUT)
        loop = Loop.of(None, module.initial_state(BATCH), x, segment=module.segment)
        return probe_loop(loop, candidates=[STEPS]).segments[0].last.backward_workspace_bytes

    assert peak(schedule=Schedule(warm_up_iterations=5)) == peak()


@KINDS
@pytest.mark.parametrize("rule", ["top", "columns", "rows", "mixed"])
def test_dense_iterations_take_no_more_bytes_than_sparse_ones(kind, rule, monkeypatch):
    """Plans are made for sparse ones, and are to hold in the warm-up and in between."""
    leave_out_with(monkeypatch)
    peaks = []
    for warm_up_iterations in (9, 0):
        module = kind(INPUT, 16, rule=rule, schedule=Schedule(warm_up_iterations=warm_up_iterations))
        x = torch.randn(50, 64, INPUT, requires_grad=True)
        loss_of(module, x).backward()  # gradients, and what is timed once
        module.zero_grad(set_to_none=False)
        peaks.append(measure(lambda x=x, module=module: loss_of(module, x).backward()).peak_bytes)
    assert peaks[0] <= 1.01 * peaks[1]


JOB = {
    "model": {"kind": "lstm", "hidden_size": 16, "embedding_size": 8},
    "data": {"characters": 4000},
    "sequence": {"length": 60, "batch_size": 4},
    "training": {
        "iterations": 4,
        "learning_rate": 0.02,
        "gradient_sparsity": {"rule": "top", "keep_ratio": 0.3, "cosine_every": 2},
    },
    "budget": "40%",
}


def changed(**sparsity):
    training = {**JOB["training"], "gradient_sparsity": sparsity}
    return {**JOB, "training": training}


def test_a_job_trains_sparsely_under_its_plan_and_says_that_it_is_inexact():
    report = run_job(job_from_record(JOB), name="sparse")
    assert report.broken_promises == []
    assert report.gradient_check is None
    measurement = report.measurement()
    assert measurement["exact_gradient"] is False
    found = measurement["gradient_sparsity"]
    assert [record["iteration"] for record in found["iterations"]] == [0, 1, 2, 3]
    assert set(found["iterations"][0]["gate_sparsity"]) == {"i", "f", "g", "o"}
    assert [cosine["iteration"] for cosine in found["cosines"]] == [0, 2]
    assert found["sparsity"] == pytest.approx(0.7, abs=0.02)
    assert "INEXACT" in report.table()


@pytest.mark.parametrize(("kind", "hidden_size", "steps"), [("lstm", 96, 20), ("gru", 2, 2)])
def test_an_iteration_that_compares_gradients_keeps_the_budget(kind, hidden_size, steps):
    """Which the report's peak is one of: the least budget of a job whose weights, or whose random streams,
    are most of what it holds
    """
    model = {"kind": kind, "hidden_size": hidden_size, "embedding_size": 3}
    wide = {**JOB, "model": model, "sequence": {"length": steps, "batch_size": 1}}
    prepared = PreparedJob.of(job_from_record({**wide, "budget": "64MiB"}), lambda _line: None)
    with pytest.raises(BudgetTooSmall) as refusal:
        replace(prepared, budget_bytes=1).plan(None)
    plan, _ = replace(prepared, budget_bytes=refusal.value.minimum_budget_bytes).plan(None)
    measured, counts = measured_iteration(prepared, plan)
    assert prepared.audit.cosines
    assert counts == planned_counts(plan)
    assert measured.peak_bytes <= refusal.value.minimum_budget_bytes


def test_the_books_are_part_of_the_budget():
    """Copies for comparison and error feedback are lines of the probe that every plan counts."""
    prepared = PreparedJob.of(
        job_from_record(changed(rule="top", keep_ratio=0.3, error_feedback=True)), lambda _line: None
    )
    layers = sum(parameter.nbytes for parameter in prepared.model.recurrent.parameters())
    workspace = workspace_bytes(list(prepared.model.recurrent.parameters()), gates=4)
    assert prepared.probe.static[-1].bytes == 3 * layers + workspace
    assert prepared.request()["training"]["gradient_sparsity"]["error_feedback"] is True
    assert prepared.profile()["gradient_sparsity"] == prepared.request()["training"]["gradient_sparsity"]


@pytest.mark.parametrize(
    ("record", "field"),
    [
        (changed(rule="rms", threshold=-1), "training.gradient_sparsity.threshold"),
        (changed(rule="rms", threshold=math.nan), "training.gradient_sparsity.threshold"),
        (changed(rule="rms", threshold=10**400), "training.gradient_sparsity.threshold"),
        (changed(rule="none"), "training.gradient_sparsity.rule"),
        (changed(rule="blocks", block_size=24), "training.gradient_sparsity.block_size"),
        (changed(threshold=0.3), "training.gradient_sparsity.rule"),
        (changed(rule="rms", sharpness=1), "training.gradient_sparsity.sharpness"),
        (changed(rule="mixed", error_feedback=True), "training.gradient_sparsity.error_feedback"),
        (changed(rule="top", cosine_every=-1), "training.gradient_sparsity.cosine_every"),
        ({**JOB, "model": {"kind": "rnn", "hidden_size": 4}}, "training.gradient_sparsity"),
    ],
)
def test_jobs_with_impossible_sparsity_are_refused(record, field):
    with pytest.raises(InvalidJob) as refusal:
        job_from_record(record)
    assert refusal.value.field == field


def test_the_planner_is_told_the_rule_and_not_how_often_it_is_checked():
    told = SparsitySpec(rule="columns", keep_ratio=0.25, cosine_every=3).planned()
    assert told == {"rule": "columns", "keep_ratio": 0.25, "warm_up_iterations": 0, "error_feedback": False}
