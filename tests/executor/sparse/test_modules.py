"""Sparse modules as torch's modules: what they are made with, what they take and refuse, what they save."""

from __future__ import annotations

import io

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.func import functional_call  # noqa: E402
from torch.nn.utils import parametrize  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from executor.errors import StateChanged  # noqa: E402
from executor.sparse import (  # noqa: E402
    Columns,
    InvalidSparsity,
    Mixed,
    Rows,
    Schedule,
    SparseGRU,
    SparseGRUCell,
    SparseLSTM,
    SparseLSTMCell,
)
from executor.sparse.native import native_fill  # noqa: E402
from executor.sparse.repeated import LEAST_STEPS, _seconds  # noqa: E402

torch.set_num_threads(1)

STEPS, BATCH, INPUT, HIDDEN = 6, 4, 5, 8
MODULES = pytest.mark.parametrize("kind", [SparseLSTM, SparseGRU])
ALL = pytest.mark.parametrize("kind", [SparseLSTM, SparseGRU, SparseLSTMCell, SparseGRUCell])


def inputs(kind, dtype=torch.float32):
    x = torch.randn(STEPS, BATCH, INPUT).to(dtype)
    return x if issubclass(kind, nn.RNNBase) else x[0]


@ALL
def test_every_setting_of_a_rule_is_an_argument(kind):
    def rule(**settings):
        return kind(INPUT, HIDDEN, **settings).sparsifier.rule

    assert rule(rule="columns", keep_ratio=0.5, share_steps=7) == Columns(0.5, 7)
    assert rule(rule="blocks", block_size=4) == Columns(block_size=4)
    assert rule(rule="rows", share_steps=3) == Rows(share_steps=3)
    assert rule(rule="mixed", row_ratio=0.3) == Mixed(row_ratio=0.3)
    with pytest.raises(InvalidSparsity, match="leave share_steps and block_size out"):
        rule(rule=Columns(), share_steps=3, block_size=2)
    with pytest.raises(InvalidSparsity, match="'rows' has no such setting"):
        rule(rule="rows", row_ratio=0.3)


@ALL
def test_blocks_that_do_not_divide_the_gates_are_refused_at_once(kind):
    columns = 10 * len(kind.cell.gate_names)
    with pytest.raises(InvalidSparsity, match=f"16 does not divide the {columns} columns") as refusal:
        kind(INPUT, 10, rule="blocks")
    assert refusal.value.field == "block_size"
    kind(INPUT, 10, rule="blocks", block_size=5)


@ALL
@pytest.mark.parametrize(
    ("field", "value"),
    [("rule", None), ("rule", Columns), ("schedule", "x"), ("error_feedback", "yes"), ("seed", 0.5)],
)
def test_arguments_of_another_type_are_refused_at_once(kind, field, value):
    with pytest.raises(InvalidSparsity, match="is no") as refusal:
        kind(INPUT, HIDDEN, **{field: value})
    assert refusal.value.field == field


@ALL
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64])
def test_inputs_of_another_type_are_refused_as_torch_refuses_them(kind, dtype):
    module = kind(INPUT, HIDDEN)
    with pytest.raises(StateChanged, match=rf"the input is {dtype}, the weights are torch\.float32: convert"):
        module(inputs(kind, dtype))


@MODULES
@pytest.mark.parametrize("shape", [(0, BATCH, INPUT), (STEPS, 0, INPUT), (0, INPUT)])
def test_empty_inputs_are_refused(kind, shape):
    with pytest.raises(StateChanged, match="at least one step and row"):
        kind(INPUT, HIDDEN)(torch.zeros(shape))


@ALL
def test_autocast_alone_changes_types(kind):
    module, x = kind(INPUT, HIDDEN), inputs(kind, torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = module(x)
        with pytest.raises(StateChanged, match=r"the input is torch\.float64"):
            module(x.double())
    expected = module(x.float())
    assert torch.equal(found[0], expected[0])


@MODULES
def test_states_of_another_type_are_refused_before_the_iteration_ends(kind):
    module, x = kind(INPUT, HIDDEN), inputs(kind)
    module(x)[0].sum().backward()
    wrong = tuple(part.double() for part in module.initial_state(BATCH))
    with pytest.raises(StateChanged, match=r"a part of the state is torch\.float64"):
        module(x, wrong)
    with pytest.raises(StateChanged, match=r"a part of the state is torch\.float64"):
        module.segment(wrong, x)
    assert module.sparsifier.iteration == 0


@ALL
@pytest.mark.parametrize("sizes", [(2 * BATCH, HIDDEN), (1, HIDDEN), (BATCH, HIDDEN // 2)])
def test_states_of_another_shape_are_refused(kind, sizes):
    """By calls and by segments; compiled kernels would write past what is smaller than they are told."""
    module, x = kind(INPUT, HIDDEN), torch.randn(12, BATCH, INPUT)
    cell = not isinstance(module, nn.RNNBase)
    parts = [torch.zeros(sizes if cell else (1, *sizes)) for _ in kind.cell.state_names]
    right = [torch.zeros((BATCH, HIDDEN) if cell else (1, BATCH, HIDDEN)) for _ in parts]
    for given in (parts, [*right[1:], parts[0]]):
        with pytest.raises(StateChanged, match="the shapes"):
            module(x[0] if cell else x, given)
        if not cell:
            with pytest.raises(StateChanged, match="the shapes"):
                module.segment(tuple(given), x)


@MODULES
def test_a_segment_takes_as_many_layers_as_there_are(kind):
    """A state of two layers for one, of one part too few, or of one dimension too few."""
    module, x = kind(INPUT, HIDDEN), torch.randn(12, BATCH, INPUT)
    state = module.initial_state(BATCH)
    two_layers = kind(INPUT, HIDDEN, 2).initial_state(BATCH)
    for given in (two_layers, state[1:], tuple(part[0] for part in state)):
        with pytest.raises(StateChanged, match="the shapes"):
            module.segment(given, x)
    with pytest.raises(StateChanged, match="must be"):
        module.segment(state, x[:, 0])


def test_compiled_kernels_refuse_tensors_that_do_not_fit():
    """Whoever calls them: they are given addresses."""
    kernel = native_fill(torch.zeros(1))
    if kernel is None:
        pytest.skip("there is no C compiler")
    with pytest.raises(ValueError, match="do not fit"):
        kernel(*(torch.zeros(BATCH, width) for width in (32, 8, 8, 8, 8, 24)))


@ALL
def test_a_state_may_be_a_tuple_or_a_list_of_its_parts(kind):
    module, x = kind(INPUT, HIDDEN), inputs(kind)
    shape = (1, BATCH, HIDDEN) if x.dim() == 3 else (BATCH, HIDDEN)
    parts = [torch.rand(shape) for _ in kind.cell.state_names]
    one, other = module(x, parts), module(x, tuple(parts))
    assert torch.equal(one[0], other[0])
    if len(parts) == 1:
        assert torch.equal(module(x, parts[0])[0], one[0])
    else:
        with pytest.raises(StateChanged, match=r"the state has 1 parts; it is \(h, c\)"):
            module(x, parts[0])


@MODULES
def test_weights_may_be_swapped(kind):
    """By functional_call and by parametrizations, whose tensors are no parameters."""
    module, x = kind(INPUT, HIDDEN, 2, rule="top"), inputs(kind)
    expected = module(x)[0]
    twice = {name: (parameter / 2 + parameter / 2) for name, parameter in module.named_parameters()}
    assert torch.equal(functional_call(module, twice, (x,))[0], expected)

    class Doubled(nn.Module):
        def forward(self, weight):
            return 2 * weight

    parametrize.register_parametrization(module, "weight_hh_l0", Doubled())
    doubled = {**twice, "weight_hh_l0": 2 * twice["weight_hh_l0"]}
    module(x)[0].sum().backward()
    assert module.parametrizations.weight_hh_l0.original.grad.abs().sum() > 0
    plain = kind(INPUT, HIDDEN, 2, rule="top")
    plain.load_state_dict(doubled)
    assert torch.equal(module(x)[0], plain(x)[0])


@ALL
def test_what_torch_takes_is_taken(kind):
    """Inputs that are parameters; a single sequence, or a single row for a cell, without a batch."""
    module, x = kind(INPUT, HIDDEN), inputs(kind)
    assert torch.equal(module(nn.Parameter(x))[0], module(x)[0])
    is_module, count = x.dim() == 3, len(kind.cell.state_names)
    parts = tuple(torch.randn(1, HIDDEN) if is_module else torch.randn(HIDDEN) for _ in range(count))
    batched = tuple(part.unsqueeze(-2) for part in parts)
    found = module(x[..., 0, :], parts if count > 1 else parts[0])
    expected = module(x[..., :1, :], batched if count > 1 else batched[0])
    first, other = (each[0] if isinstance(each, tuple) else each for each in (found, expected))
    assert torch.equal(first, other.squeeze(-2))
    with pytest.raises(StateChanged):
        module([1.0]) if is_module else module(x[None])


@MODULES
def test_weights_that_are_computed_cannot_be_taken_over(kind):
    of_torch = nn.LSTM if kind is SparseLSTM else nn.GRU
    module = nn.utils.parametrizations.weight_norm(of_torch(INPUT, HIDDEN), "weight_hh_l0")
    with pytest.raises(TypeError, match=r"weight_hh_l0 of the .* is computed"):
        kind.from_torch(module, rule="top")


@MODULES
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointed_calls_of_one_backward_pass_are_one_iteration(kind, use_reentrant):
    """Each runs again in the midst of it, when others were counted already; so does none of the next."""
    module, counts = kind(HIDDEN, HIDDEN, rule="top", error_feedback=True), []
    for _ in range(3):
        y = torch.randn(STEPS, BATCH, HIDDEN, requires_grad=True)
        for _ in range(2):
            y = checkpoint(lambda x: module(x)[0], y, use_reentrant=use_reentrant)
        y.sum().backward()
        counts.append(module.sparsifier.iteration)
    assert counts == [0, 1, 2]
    of_one_call = STEPS * BATCH * 2 * HIDDEN * len(module.weight_hh_l0)
    assert module.end_iteration().forward_macs == 2 * of_one_call


def saved_and_loaded(state):
    """As a file holds it, read without running anything in it."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("ends", [True, False])
def test_a_resumed_module_goes_on_in_its_schedule(ends):
    """Whether or not the iteration whose weights are saved was ended."""

    def made():
        lstm = SparseLSTM(INPUT, HIDDEN, rule="mixed", schedule=Schedule(warm_up_iterations=2))
        return nn.ModuleDict({"layers": lstm})

    model, x = made(), torch.randn(STEPS, BATCH, INPUT)
    for _ in range(3):
        model["layers"](x)[0].square().sum().backward()
        if ends:
            model["layers"].end_iteration()
    resumed = made()
    resumed.load_state_dict(saved_and_loaded(model.state_dict()))
    assert resumed["layers"].sparsifier.iteration == 3
    assert not resumed["layers"].sparsifier.is_dense_now
    for each in (model, resumed):
        each.zero_grad()
        each["layers"](x)[0].square().sum().backward()
    for one, other in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


@pytest.mark.parametrize(
    ("kind", "of_torch"),
    [
        (SparseLSTM, nn.LSTM),
        (SparseGRU, nn.GRU),
        (SparseLSTMCell, nn.LSTMCell),
        (SparseGRUCell, nn.GRUCell),
    ],
)
def test_weights_go_from_torch_and_to_torch_strictly(kind, of_torch):
    sparse, plain = kind(INPUT, HIDDEN), of_torch(INPUT, HIDDEN)
    sparse.sparsifier.restart(5)
    sparse.load_state_dict(plain.state_dict())
    assert sparse.sparsifier.iteration == 5
    plain.load_state_dict(sparse.state_dict())
    assert list(sparse.state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize("kind", [SparseLSTMCell, SparseGRUCell])
@pytest.mark.parametrize("given", [None, [1.0]])
def test_what_is_no_tensor_is_refused_by_cells_too(kind, given):
    with pytest.raises(StateChanged, match=f"that is a {type(given).__name__} must be a tensor"):
        kind(INPUT, HIDDEN)(given)


@ALL
def test_empty_batches_are_refused(kind):
    with pytest.raises(StateChanged, match="empty"):
        kind(INPUT, HIDDEN)(inputs(kind)[..., :0, :])


@MODULES
def test_another_default_type_than_that_of_the_weights_is_nothing_to_them(kind):
    """Products were timed in the default type, which is not packed: a float32 module failed"""
    _seconds.cache_clear()
    x = torch.randn(LEAST_STEPS, BATCH, INPUT)
    module = kind(INPUT, HIDDEN, dtype=torch.float32)
    torch.set_default_dtype(torch.float64)
    try:
        y, _ = module(x)
        y.sum().backward()
    finally:
        torch.set_default_dtype(torch.float32)
    assert module.weight_hh_l0.grad.dtype == torch.float32
