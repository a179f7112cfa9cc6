"""What each rule keeps, and that the kernels which skip what is dropped agree with dense ones on zeros."""

from __future__ import annotations

import copy
import math
import pickle
from random import Random

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from executor.sparse import (  # noqa: E402
    RULES,
    Absolute,
    Columns,
    EverythingDropped,
    InvalidSparsity,
    Mixed,
    Relative,
    Rows,
    Schedule,
    SparseGRU,
    SparseLSTM,
    TopEntries,
    rule_named,
)
from executor.sparse.columns import largest_blocks  # noqa: E402
from executor.sparse.mixed import sampled_rows  # noqa: E402
from tests.executor.sparse.choices import leave_out_with, multiply_zeros  # noqa: E402

torch.set_num_threads(1)

STEPS, BATCH, INPUT, HIDDEN = 12, 6, 5, 8


@pytest.fixture
def always_gather(monkeypatch):
    """Use the gathering kernels however small the sizes are."""
    leave_out_with(monkeypatch)


def dropped_by(rule, gradient):
    kept = gradient.clone()
    rule.drop(kept)
    return kept


def test_absolute_keeps_what_is_larger_than_the_threshold():
    gradient = torch.tensor([[0.5, -0.5, 0.51, -0.51, 0.0]])
    assert (dropped_by(Absolute(0.5), gradient) != 0).tolist() == [[False, False, True, True, False]]


@given(scale=st.floats(1e-6, 1e6), seed=st.integers(0, 99))
def test_relative_does_not_care_about_the_losss_scale(scale, seed):
    gradient = torch.randn(4, 20, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    kept = dropped_by(Relative(0.8), gradient) != 0
    assert torch.equal(dropped_by(Relative(0.8), gradient * scale) != 0, kept)
    assert torch.equal(kept, gradient.abs() > 0.8 * gradient.square().mean().sqrt())


@pytest.mark.parametrize("scale", [2.0**-90, 2.0**90])
def test_relative_bears_scales_whose_squares_float32_does_not_hold(scale):
    gradient = torch.randn(4, 20)
    kept = dropped_by(Relative(0.8), gradient) != 0
    assert 0 < int(kept.sum()) < kept.numel()
    assert torch.equal(dropped_by(Relative(0.8), gradient * scale) != 0, kept)


@given(ratio=st.floats(0.01, 1), seed=st.integers(0, 99))
def test_top_keeps_the_largest_entries(ratio, seed):
    gradient = torch.randn(5, 12, generator=torch.Generator().manual_seed(seed))
    kept = dropped_by(TopEntries(ratio), gradient)
    count = max(1, round(60 * ratio))
    assert int((kept != 0).sum()) == count
    assert kept.abs().sum() == pytest.approx(float(gradient.abs().flatten().topk(count).values.sum()))


@pytest.mark.parametrize("rule", [Absolute(0.5), Relative(0.5), TopEntries(0.1)])
def test_entries_that_are_not_numbers_show(rule):
    gradient = torch.tensor([[math.nan, 1.0, 0.01, 2.0]])
    assert torch.isnan(dropped_by(rule, gradient)[0, 0])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("gathers", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [SparseLSTM, SparseGRU])
@pytest.mark.parametrize(
    "rule",
    [Absolute(1e-9), Relative(0.3), TopEntries(0.1), Columns(0.25), Columns(0.25, 2, 4), Rows(0.5), Mixed()],
    ids=str,
)
def test_gradients_that_are_not_finite_show_in_the_weights(rule, kind, bias, gathers, bad, monkeypatch):
    """Whichever sequence they come to: a GradScaler has to find the overflow."""
    (leave_out_with if gathers else multiply_zeros)(monkeypatch)
    module = kind(INPUT, HIDDEN, rule=rule, bias=bias)
    x, state = torch.randn(5, BATCH, INPUT), tuple(torch.randn(1, BATCH, HIDDEN) for _ in range(2))
    for row in range(BATCH):
        module.zero_grad()
        y, _ = module(x, state[: len(kind.cell.state_names)])
        gradient = 1e-3 * torch.randn_like(y)
        gradient[1, row, 0] = bad
        y.backward(gradient)
        assert not (module.weight_ih_l0.grad.isfinite().all() and module.weight_hh_l0.grad.isfinite().all())


def test_blocks_are_neighbours_with_the_largest_sums():
    scores = torch.tensor([9.0, 0, 1, 1, 5, 4, 0, 0])
    assert largest_blocks(scores, 0.25, 1).tolist() == [0, 4]
    assert largest_blocks(scores, 0.5, 2).tolist() == [0, 1, 4, 5]
    assert largest_blocks(scores, 0.01, 4).tolist() == [0, 1, 2, 3]


def gate_gradients(module, x):
    """The gate gradient that the weight gradients were made of, seen through the bias: a step of it each."""
    y, _ = module(x)
    y.square().sum().backward()
    return module.bias_ih_l0.grad


def step_by_step(rule, kind=SparseLSTM):
    """Each sequence and step alone in a batch of its own would be too slow: the sums over the batch do."""
    torch.manual_seed(0)
    module = kind(INPUT, HIDDEN, rule=rule)
    x = torch.randn(1, BATCH, INPUT)
    return module, gate_gradients(module, x), module.end_iteration()


def test_columns_that_are_dropped_get_no_gradient(always_gather):
    module, gradient, record = step_by_step(Columns(0.25))
    assert int((gradient != 0).sum()) == HIDDEN
    assert torch.equal(module.weight_ih_l0.grad.abs().sum(1) > 0, gradient != 0)
    assert record.sparsity == pytest.approx(0.75)
    assert record.saved_ratio == pytest.approx(0.75 * 2 / 3, abs=0.1)


def dense_with_zeros(module, x, monkeypatch):
    """The same rule with dense kernels on zeroed operands."""
    multiply_zeros(monkeypatch)
    return run(module, x)


def run(module, x):
    y, after = module(x)
    finals = after if isinstance(after, tuple) else (after,)
    total = y.square().sum() + sum(part.sum() for part in finals)
    return torch.autograd.grad(total, [x, *module.parameters()])


@pytest.mark.parametrize("kind", [SparseLSTM, SparseGRU])
@pytest.mark.parametrize(
    "rule", [Columns(0.25, 5), Columns(0.5, 25), Columns(0.25, 4, block_size=2), Rows(0.5, 5)], ids=str
)
def test_gathered_products_are_the_dense_ones_of_what_is_left(kind, rule, monkeypatch, always_gather):
    module = kind(INPUT, HIDDEN, 2, rule=rule, dtype=torch.float64)
    x = torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64, requires_grad=True)
    gathered = run(module, x)
    for found, expected in zip(gathered, dense_with_zeros(module, x, monkeypatch), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", [SparseLSTM, SparseGRU])
@pytest.mark.parametrize(
    "rule", [Columns(1.0, 5), Columns(1.0, block_size=4), Rows(1.0, 4), Mixed(1.0, row_ratio=1.0)], ids=str
)
def test_structured_rules_that_keep_all_are_the_dense_gradient(kind, rule, always_gather):
    module = kind(INPUT, HIDDEN, 2, rule=rule, dtype=torch.float64)
    x = torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64, requires_grad=True)
    sparse = run(module, x)
    with module.sparsifier.paused():
        dense = run(module, x)
    for found, expected in zip(sparse, dense, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_sequences_that_are_dropped_pass_nothing_on():
    """At every step of a stretch, half of the sequences leave no trace in the gradient of x."""
    module = SparseLSTM(INPUT, HIDDEN, rule=Rows(0.5, STEPS))
    x = torch.randn(STEPS, BATCH, INPUT, requires_grad=True)
    (gradient,) = torch.autograd.grad(module(x)[0].square().sum(), [x])
    silent = gradient.abs().sum((0, 2)) == 0
    assert int(silent.sum()) == BATCH // 2


@pytest.mark.parametrize("kind", [SparseLSTM, SparseGRU])
@pytest.mark.parametrize("gathers", [True, False])
@pytest.mark.parametrize(
    "rule", [Rows(0.5, 20), Columns(0.25, 20), Columns(0.25, 20, 4), Mixed(0.25, 20, row_ratio=1.0)], ids=str
)
def test_what_comes_after_the_loss_decides_nothing(rule, gathers, kind, monkeypatch):
    """Steps that no loss looks at and none after them: the rest is as it would be without them."""
    (leave_out_with if gathers else multiply_zeros)(monkeypatch)
    module = kind(INPUT, HIDDEN, rule=rule, dtype=torch.float64)
    x = torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64)
    found, expected = (
        torch.autograd.grad(module(steps)[0][:4].square().sum(), list(module.parameters()))
        for steps in (x, x[:4])
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
        assert one.any()


def test_sequences_whose_loss_comes_earlier_get_the_places_that_are_left():
    """Of four sequences of other lengths two are kept: the longest from its end on, then the next."""
    module = SparseLSTM(INPUT, HIDDEN, rule=Rows(0.5, 20))
    x = torch.randn(STEPS, 4, INPUT, requires_grad=True)
    y, _ = module(x)
    ends = [3, 9, 1, 6]
    (gradient,) = torch.autograd.grad(sum(y[end, row].square().sum() for row, end in enumerate(ends)), [x])
    assert [row for row in range(4) if gradient[:, row].any()] == [1, 3]
    record = module.end_iteration()
    assert record.sparsity == pytest.approx(1 - (10 + 7) / (4 * STEPS))


@pytest.mark.parametrize("rule", [Rows(0.5), Columns(0.25)], ids=str)
def test_structured_rules_that_leave_nothing_are_refused_too(rule, monkeypatch):
    """Were they to keep what has no gradient, it would not pass in silence."""
    class_, name = type(rule), "kept_rows" if isinstance(rule, Rows) else "kept_columns"
    monkeypatch.setattr(class_, name, lambda _, given: torch.tensor([0]))
    module = SparseLSTM(INPUT, HIDDEN, rule=rule)
    module.weight_hh_l0.data.zero_()
    y, _ = module(torch.randn(STEPS, BATCH, INPUT))
    y[:, 1:, 1:].square().sum().backward()  # neither of the first sequence nor of the first unit
    with pytest.raises(EverythingDropped):
        module.end_iteration()


@given(
    norms=st.lists(st.floats(0, 1e3), min_size=2, max_size=40),
    share=st.floats(0.05, 0.95),
    offset=st.floats(0, 0.999),
)
def test_rows_are_sampled_by_their_norms(norms, share, offset):
    """As many as asked for, ascending, none twice; each scaled by 1 / its probability, at least 1."""
    count = max(1, int(len(norms) * share))
    sample = sampled_rows(torch.tensor(norms, dtype=torch.float64), count, offset)
    rows = sample.rows.tolist()
    assert len(rows) == count
    assert rows == sorted(set(rows))
    assert all(scale >= 1 - 1e-9 for scale in sample.scales.tolist())


def test_a_sample_of_rows_is_unbiased():
    """Averaged over evenly spread offsets, the scaled sample is the sum over all rows."""
    norms = torch.rand(50, dtype=torch.float64) ** 4
    total = torch.zeros((), dtype=torch.float64)
    offsets = 500
    for index in range(offsets):
        sample = sampled_rows(norms, 20, (index + 0.5) / offsets)
        total += (norms[sample.rows] * sample.scales).sum() / offsets
    assert float(total) == pytest.approx(float(norms.sum()), rel=0.01)
    counts = torch.zeros(50, dtype=torch.float64)
    for index in range(offsets):
        counts[sampled_rows(norms, 20, (index + 0.5) / offsets).rows] += 1 / offsets
    expected = sampled_rows(norms, 20, 0.5)
    torch.testing.assert_close(counts[expected.rows], 1 / expected.scales, atol=0.01, rtol=0)


@pytest.mark.parametrize("kind", [SparseLSTM, SparseGRU])
def test_mixed_weight_gradients_are_unbiased(kind, always_gather):
    """The mean over many draws of the sampled rows approaches the gradient with all rows."""
    module = kind(INPUT, HIDDEN, rule=Mixed(1.0, row_ratio=0.5), dtype=torch.float64)
    x = torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64)
    loss = module(x)[0].square().sum()
    with module.sparsifier.paused():
        (dense,) = torch.autograd.grad(loss, [module.weight_hh_l0], retain_graph=True)
    total = torch.zeros_like(dense)
    for draw in range(300):
        module.sparsifier._random = Random(draw)
        total += torch.autograd.grad(loss, [module.weight_hh_l0], retain_graph=True)[0] / 300
    assert float((total - dense).norm() / dense.norm()) < 0.05


def test_resumed_iterations_draw_the_same_rows(always_gather):
    module = SparseLSTM(INPUT, HIDDEN, rule=Mixed(row_ratio=0.3))
    other = copy.deepcopy(module)
    x = torch.randn(STEPS, BATCH, INPUT, requires_grad=True)
    for _ in range(3):
        found = run(module, x)
        module.end_iteration()
    other.sparsifier.restart(2)
    assert all(torch.equal(one, two) for one, two in zip(run(other, x), found, strict=True))


@pytest.mark.parametrize(
    ("rule", "settings", "field"),
    [
        ("absolute", {"threshold": -1e-9}, "threshold"),
        ("absolute", {"threshold": math.nan}, "threshold"),
        ("absolute", {"threshold": math.inf}, "threshold"),
        ("absolute", {}, "threshold"),
        ("rms", {"threshold": -0.1}, "threshold"),
        ("rms", {"threshold": True}, "threshold"),
        ("rms", {"keep_ratio": 0.5}, "keep_ratio"),
        ("top", {"keep_ratio": 0.0}, "keep_ratio"),
        ("top", {"keep_ratio": math.nan}, "keep_ratio"),
        ("columns", {"keep_ratio": 1.5}, "keep_ratio"),
        ("columns", {"block_size": 4}, "block_size"),
        ("blocks", {"block_size": 0}, "block_size"),
        ("rows", {"share_steps": 0}, "share_steps"),
        ("mixed", {"row_ratio": -0.5}, "row_ratio"),
        ("nothing", {}, "rule"),
    ],
)
def test_settings_out_of_range_are_refused(rule, settings, field):
    with pytest.raises(InvalidSparsity) as refusal:
        rule_named(rule, **settings)
    assert refusal.value.field == field


@pytest.mark.parametrize("name", RULES)
def test_every_rule_has_a_name(name):
    needed = {"threshold": 0.1} if name == "absolute" else {}
    assert type(rule_named(name, **needed)) is RULES[name]


def test_a_threshold_that_drops_everything_is_refused_before_the_optimizers_step():
    module = SparseLSTM(INPUT, HIDDEN, rule="absolute", threshold=1e9)
    module(torch.randn(STEPS, BATCH, INPUT))[0].sum().backward()
    with pytest.raises(EverythingDropped, match=r"Absolute\(threshold=1000000000.0\).*of l0 in iteration 0"):
        module.end_iteration()
    module = SparseLSTM(INPUT, HIDDEN, rule="absolute", threshold=1e9)
    module(torch.randn(STEPS, BATCH, INPUT))[0].sum().backward()
    with pytest.raises(EverythingDropped):
        module(torch.randn(STEPS, BATCH, INPUT))


def three_layers(**options):
    """Each layer's gradient is several times smaller than that of the layer above it."""
    torch.manual_seed(1)
    module = SparseLSTM(INPUT, HIDDEN, 3, rule="absolute", threshold=1e-3, **options)
    module(torch.randn(STEPS, BATCH, INPUT))[0].mean().backward()
    return module


def test_a_layer_of_which_nothing_is_left_is_refused_by_name():
    """However much is left of the others: neither it nor those below it would learn anything."""
    module = three_layers()
    silent = [f"l{layer}" for layer in range(3) if not module.get_parameter(f"weight_hh_l{layer}").grad.any()]
    assert silent == ["l0", "l1"]
    with pytest.raises(EverythingDropped, match=r"every gate gradient of l1 in iteration 0") as refusal:
        module.end_iteration()
    assert refusal.value.layers == ("l1",)  # nothing came down to l0, of which the rule had nothing to drop
    copied = pickle.loads(pickle.dumps(refusal.value))  # noqa: S301 - made here
    assert (copied.layers, str(copied)) == (("l1",), str(refusal.value))


def test_a_direction_counts_as_a_layer():
    module = SparseLSTM(INPUT, HIDDEN, rule="absolute", threshold=1e-3, bidirectional=True)
    y, _ = module(torch.randn(STEPS, BATCH, INPUT))
    (y[..., :HIDDEN].sum() + 1e-9 * y[..., HIDDEN:].sum()).backward()
    with pytest.raises(EverythingDropped) as refusal:
        module.end_iteration()
    assert refusal.value.layers == ("l0_reverse",)


def test_sparsity_is_told_of_each_layer():
    module = SparseLSTM(HIDDEN, HIDDEN, 2, rule="rms", threshold=0.5)
    x = torch.randn(STEPS, BATCH, HIDDEN, requires_grad=True)
    module(x)[0].square().sum().backward()
    record = module.end_iteration()
    assert set(record.layer_sparsity) == {"l0", "l1"}
    assert record.record()["layer_sparsity"] == record.layer_sparsity
    assert 0 < record.layer_sparsity["l0"] != record.layer_sparsity["l1"]
    # Layers of equal sizes: the mean over layers is that over gates.
    assert sum(record.layer_sparsity.values()) / 2 == pytest.approx(record.sparsity)


@pytest.mark.parametrize(
    "rule", [Absolute(1e-3), Relative(), TopEntries(), Columns(), Rows(), Mixed()], ids=str
)
def test_gradients_that_are_zero_by_themselves_are_not_the_rules_doing(rule):
    """A loss that does not depend on the layers, and layers of which no output is used."""
    module = SparseLSTM(INPUT, HIDDEN, 2, rule=rule)
    (0 * module(torch.randn(STEPS, BATCH, INPUT))[0].sum()).backward()
    assert module.end_iteration() is not None


def test_dense_iterations_are_never_refused():
    module = three_layers(schedule=Schedule(warm_up_iterations=1))
    assert module.end_iteration().sparsity < 0.1
