"""A rule that drops nothing leaves the dense gradients, bit for bit; the dense path is torch's."""

from __future__ import annotations

import shutil

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from executor.errors import StateChanged  # noqa: E402
from executor.native.native_library import compiled_library  # noqa: E402
from executor.sparse import InvalidSparsity, SparseGRU, SparseGRUCell, SparseLSTM, SparseLSTMCell, native  # noqa: E402

torch.set_num_threads(1)

KINDS = {
    "lstm": (nn.LSTM, nn.LSTMCell, SparseLSTM, SparseLSTMCell),
    "gru": (nn.GRU, nn.GRUCell, SparseGRU, SparseGRUCell),
}
kinds = pytest.mark.parametrize("kind", KINDS)
NOTHING_DROPPED = {
    "absolute": {"rule": "absolute", "threshold": 0.0},
    "rms": {"rule": "rms", "threshold": 0.0},
    "top": {"rule": "top", "keep_ratio": 1.0},
}
STEPS, BATCH, INPUT = 11, 6, 5


def gradients(y, leaves):
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    return torch.autograd.grad((y * weights).sum(), leaves)


@kinds
@pytest.mark.parametrize("hidden", [8, 16, 17, 20, 33, 96, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", NOTHING_DROPPED)
def test_steps_are_bitwise_those_of_torchs_cell(kind, hidden, rule, dtype):
    """Outputs and all gradients of a loop over single steps, whether or not vectors divide the units.

    The loss is added up step by step, as loops do it: autograd then adds what reaches an h in the order in
    which we do. (Of three terms, as a GRU's h gets, the order decides the last bit.)
    """
    _, torch_cell, _, sparse = KINDS[kind]
    cell = torch_cell(INPUT, hidden, dtype=dtype)
    module = sparse(INPUT, hidden, **NOTHING_DROPPED[rule], dtype=dtype)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(getattr(cell, name))
    x = torch.randn(STEPS, BATCH, INPUT, dtype=dtype)
    weights = torch.randn(STEPS, BATCH, hidden, dtype=dtype)
    found, expected, total, expected_total = [], [], 0.0, 0.0
    ours, state = x.clone().requires_grad_(), None
    theirs, hx = x.clone().requires_grad_(), None
    for step in range(STEPS):
        state = module(ours[step], state)
        found.append(state[0] if isinstance(state, tuple) else state)
        total = total + (found[-1] * weights[step]).sum()
        hx = cell(theirs[step], hx)
        expected.append(hx[0] if isinstance(hx, tuple) else hx)
        expected_total = expected_total + (expected[-1] * weights[step]).sum()
    assert torch.equal(torch.stack(found), torch.stack(expected))
    of_ours = torch.autograd.grad(total, [ours, *module.parameters()])
    of_theirs = torch.autograd.grad(expected_total, [theirs, *cell.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(of_ours, of_theirs, strict=True))


@pytest.fixture(params=["cc", "clang"])
def compiler(request, monkeypatch, tmp_path):
    """Another compiler contracts sums and products by other rules."""
    if shutil.which(request.param) is None:
        pytest.skip(f"needs {request.param}")
    monkeypatch.setenv("CC", request.param)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for cached in (compiled_library, native._kernel):
        cached.cache_clear()
    yield
    for cached in (compiled_library, native._kernel):
        cached.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.usefixtures("compiler")
def test_the_compiled_kernel_gives_the_bits_of_torchs_operations(dtype, monkeypatch):
    module = SparseLSTM(INPUT, 37, 2, rule="rms", threshold=0.5, dtype=dtype)
    x = torch.randn(STEPS, BATCH, INPUT, dtype=dtype, requires_grad=True)
    compiled = gradients(module(x)[0], [x, *module.parameters()])
    monkeypatch.setattr("executor.sparse.lstm.native_fill", lambda _like: None)
    plain = gradients(module(x)[0], [x, *module.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(compiled, plain, strict=True))


@kinds
@pytest.mark.parametrize("rule", NOTHING_DROPPED)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_module_that_drops_nothing_is_bitwise_its_own_dense_pass(kind, rule, bidirectional):
    module = KINDS[kind][2](INPUT, 16, 2, **NOTHING_DROPPED[rule], bidirectional=bidirectional)
    x = torch.randn(STEPS, BATCH, INPUT, requires_grad=True)
    y, _ = module(x)
    sparse = gradients(y, [x, *module.parameters()])
    y, _ = module(x)
    with module.sparsifier.paused():
        dense = gradients(y, [x, *module.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(sparse, dense, strict=True))


@kinds
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bidirectional": True},
        {"batch_first": True},
        {"bias": False},
        {"bidirectional": True, "bias": False},
    ],
    ids=str,
)
def test_the_dense_pass_is_torchs_module(kind, options):
    """Outputs, final state, gradients of inputs, initial state and parameters, in float64."""
    torch_module, _, sparse, _ = KINDS[kind]
    theirs = torch_module(INPUT, 7, 2, dtype=torch.float64, **options)
    ours = sparse.from_torch(theirs, rule="absolute", threshold=0.0)
    shape = (BATCH, STEPS, INPUT) if "batch_first" in options else (STEPS, BATCH, INPUT)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    directions = 2 if "bidirectional" in options else 1
    parts = [
        torch.randn(2 * directions, BATCH, 7, dtype=torch.float64, requires_grad=True)
        for _ in ours.cell.state_names
    ]
    hx = tuple(parts) if len(parts) > 1 else parts[0]
    results = []
    for module in (theirs, ours):
        y, after = module(x, hx)
        finals = after if isinstance(after, tuple) else (after,)
        flat = torch.cat([part.flatten() for part in (y, *finals)])
        results.append([flat, *gradients(flat, [x, *parts, *module.parameters()])])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@kinds
def test_gradients_of_a_long_segment_are_torchs(kind):
    """Long enough for weights that are packed once, where that is faster."""
    torch_module, _, sparse, _ = KINDS[kind]
    theirs = torch_module(INPUT, 64)
    ours = sparse.from_torch(theirs, rule="absolute", threshold=0.0)
    x = torch.randn(40, 32, INPUT, requires_grad=True)
    for found, expected in zip(
        gradients(ours(x)[0], [x, *ours.parameters()]),
        gradients(theirs(x)[0], [x, *theirs.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@kinds
def test_evaluation_drops_nothing(kind):
    module = KINDS[kind][2](INPUT, 8, rule="top", keep_ratio=0.1).eval()
    x = torch.randn(STEPS, BATCH, INPUT, requires_grad=True)
    found = gradients(module(x)[0], [x])
    with module.sparsifier.paused():
        expected = gradients(module(x)[0], [x])
    assert torch.equal(found[0], expected[0])


def test_unbatched_inputs_and_the_types_of_results():
    module = SparseLSTM(INPUT, 4)
    y, (h, c) = module(torch.randn(3, INPUT))
    assert (list(y.shape), list(h.shape), list(c.shape)) == ([3, 4], [1, 4], [1, 4])
    y, h = SparseGRU(INPUT, 4)(torch.randn(3, INPUT))
    assert (list(y.shape), list(h.shape)) == ([3, 4], [1, 4])


def test_what_it_cannot_do_is_refused():
    packed = nn.utils.rnn.pack_sequence([torch.randn(3, INPUT)])
    with pytest.raises(StateChanged, match="packed sequences"):
        SparseLSTM(INPUT, 4)(packed)
    with pytest.raises(StateChanged, match="initial state"):
        SparseGRU(INPUT, 4)(torch.randn(3, 2, INPUT), torch.zeros(1, 1, 4))
    with pytest.raises(InvalidSparsity, match="proj_size"):
        SparseLSTM.from_torch(nn.LSTM(INPUT, 4, proj_size=2))
    with pytest.raises(InvalidSparsity, match="two directions"):
        SparseLSTM(INPUT, 4, bidirectional=True).segment((), torch.randn(3, 2, INPUT))
    with pytest.raises(TypeError, match="takes over"):
        SparseGRU.from_torch(nn.LSTM(INPUT, 4))
