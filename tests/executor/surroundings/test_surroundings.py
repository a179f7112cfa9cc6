"""Drop-ins and loops inside what people put around them: autocast, checkpoints, compilers, other weights."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.utils import prune  # noqa: E402
from torch.nn.utils.rnn import pack_sequence  # noqa: E402
from torch.overrides import TorchFunctionMode  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from executor import GRU, LSTM, RNN, BudgetTooSmall, SparseGradients, unroll  # noqa: E402
from executor.plan import checkpoint_every, tape_everything  # noqa: E402
from tests.executor.autocast_on_cpu import with_lstm_in_autocast  # noqa: E402

KINDS = {"LSTM": (nn.LSTM, LSTM), "GRU": (nn.GRU, GRU), "RNN": (nn.RNN, RNN)}
UNDER_AUTOCAST = [pytest.param("LSTM", marks=with_lstm_in_autocast), "GRU", "RNN"]
BUDGET = "1MiB"


def gradients_of(module, loss):
    module.zero_grad()
    loss.backward()
    return [parameter.grad.clone() for parameter in module.parameters()]


@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 2, "bidirectional": True}], ids=["one", "four chains"]
)
@pytest.mark.parametrize("kind", UNDER_AUTOCAST)
def test_a_drop_in_under_autocast_returns_the_types_of_torchs_module(kind, options, with_state):
    """Torch's kernels return states of another type than they are given, and so do the drop-ins"""
    torch.manual_seed(0)
    plain = KINDS[kind][0](8, 16, **options)
    x = torch.randn(30, 4, 8)
    layers = 4 if options else 1
    state = torch.zeros(layers, 4, 16) if with_state else None
    state = (state, state.clone()) if with_state and kind == "LSTM" else state
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, after = KINDS[kind][1].from_torch(plain, budget=BUDGET)(x, state)
        expected, expected_after = plain(x, state)
    parts, expected_parts = (each if isinstance(each, tuple) else (each,) for each in (after, expected_after))
    assert [part.dtype for part in (y, *parts)] == [part.dtype for part in (expected, *expected_parts)]
    found, true = (gradients_of(plain, each.float().square().mean()) for each in (y, expected))
    for mine, other in zip(found, true, strict=True):
        assert float((mine - other).norm() / other.norm()) < 0.02


@pytest.mark.parametrize("lengths", [(30, 30, 30), (30, 30, 7)], ids=["equal", "unequal"])
@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 2, "bidirectional": True}], ids=["one", "four chains"]
)
@pytest.mark.parametrize("kind", UNDER_AUTOCAST)
def test_packed_sequences_under_autocast_have_the_types_of_torchs_module(kind, options, lengths):
    """Those of an LSTM depend on whether all sequences are equally long"""
    torch.manual_seed(0)
    plain = KINDS[kind][0](8, 16, **options)
    packed = pack_sequence([torch.randn(length, 8) for length in lengths])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, after = KINDS[kind][1].from_torch(plain, budget=BUDGET)(packed)
        expected, expected_after = plain(packed)
    parts, expected_parts = (each if isinstance(each, tuple) else (each,) for each in (after, expected_after))
    assert [part.dtype for part in (y.data, *parts)] == [e.dtype for e in (expected.data, *expected_parts)]
    found, true = (gradients_of(plain, each.data.float().square().mean()) for each in (y, expected))
    for mine, other in zip(found, true, strict=True):
        assert float((mine - other).norm() / other.norm()) < 0.02


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_a_state_of_the_wrong_kind_is_refused_by_name(kind):
    """A tuple for a GRU, a tensor for an LSTM"""
    module = KINDS[kind][1].from_torch(KINDS[kind][0](4, 8), budget=BUDGET)
    h = torch.zeros(1, 2, 8)
    with pytest.raises(TypeError, match="initial state of a"):
        module(torch.randn(5, 2, 4), h if kind == "LSTM" else (h, h))


@pytest.mark.skipif(torch.__version__ < "2.8", reason="this torch does not say which hooks are set")
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_a_first_call_inside_a_checkpoint_is_probed_and_leaves_no_trace(use_reentrant):
    """The checkpoint's hooks would keep nothing of the tapes that a probe looks at"""
    torch.manual_seed(0)
    plain = nn.LSTM(8, 16)
    for make in (lambda: LSTM.from_torch(plain, budget=BUDGET), lambda: plain):
        module = make()
        x = torch.randn(30, 4, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
        y = checkpoint(lambda t, m=module: m(t)[0].square(), x, use_reentrant=use_reentrant)
        found = [*gradients_of(plain, y.sum()), x.grad]
        if module is not plain:
            kept = found
    torch.testing.assert_close(kept, found, rtol=1e-5, atol=1e-6)
    LSTM.from_torch(nn.LSTM(8, 16), budget=BUDGET)(torch.randn(20, 4, 8))[0].sum().backward()


class Around(nn.Module):
    """A drop-in between two ordinary modules."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.before, self.inner = nn.Linear(8, 8), inner

    def forward(self, x):
        return self.inner(self.before(x))[0].square().mean()


@pytest.mark.filterwarnings("ignore")  # torch's compiler warns about itself
def test_compiled_callers_break_their_graph_around_us():
    """A compiled model with a drop-in, and a compiled function that unrolls, give plain gradients"""
    torch.manual_seed(0)
    model = Around(LSTM.from_torch(nn.LSTM(8, 16), budget=BUDGET))
    x = torch.randn(30, 4, 8)
    found = gradients_of(model, torch.compile(model, backend="eager")(x))
    torch.testing.assert_close(found, gradients_of(model, model(x)), rtol=1e-6, atol=1e-7)
    cell = nn.GRUCell(8, 16)

    def step(h, x_t):
        h = cell(x_t, h)
        return h, h.square().mean()

    def total(x):
        return unroll(step, x.new_zeros(4, 16), x * 2, module=cell, reduce="sum", budget=BUDGET)[0] + 1

    found = gradients_of(cell, torch.compile(total, backend="eager")(x))
    torch.testing.assert_close(found, gradients_of(cell, total(x)), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_no_parameters_get_their_gradient(kind):
    """functional_call with computed weights, and pruned weights"""
    torch.manual_seed(0)
    plain = KINDS[kind][0](8, 16).double()
    module = KINDS[kind][1].from_torch(plain, budget=BUDGET)
    x = torch.randn(30, 4, 8, dtype=torch.float64)
    found = []
    for each in (module, plain):
        leaves = {name: p.detach().clone().requires_grad_() for name, p in plain.named_parameters()}
        weights = {name: leaf * 0.9 for name, leaf in leaves.items()}
        y, _ = torch.func.functional_call(each, weights, (x,))
        y.square().sum().backward()
        found.append([leaf.grad for leaf in leaves.values()])
    torch.testing.assert_close(*found, rtol=1e-11, atol=1e-12)

    prune.random_unstructured(module, "weight_hh_l0", amount=0.5)
    module(x)[0].square().sum().backward()
    kept = module.weight_hh_l0_mask.bool()
    assert bool((module.weight_hh_l0_orig.grad[kept] != 0).any())
    assert not bool((module.weight_hh_l0_orig.grad[~kept] != 0).any())


def test_sparse_gradients_are_refused_with_the_reason():
    """Their bytes depend on the data"""
    table = nn.Embedding(10, 4, sparse=True)

    def step(h, token):
        h = torch.tanh(h + table(token))
        return h, h

    with pytest.raises(SparseGradients, match="sparse=True"):
        unroll(step, torch.zeros(2, 4), torch.randint(10, (20, 2)), module=table, budget=BUDGET)


class Doubled(torch.Tensor):
    """A tensor whose mean is twice as large, as one with a unit might be."""

    def mean(self, *given, **options):
        return 2 * super().mean(*given, **options)


def test_subclasses_of_tensors_have_their_say_when_steps_run_again():
    """Backward called on one of them switches all of them off: steps ran again on plain tensors"""
    torch.manual_seed(0)
    cell, x = nn.GRUCell(3, 5), torch.randn(12, 4, 3)

    def step(h, x_t):
        h = cell(x_t, h)
        return 0.5 * (h + h.mean()), h.mean()

    def loss_of(run):
        return run(step, torch.zeros(4, 5).as_subclass(Doubled))

    def plain(step, state):
        total = 0
        for x_t in x:
            state, loss = step(state, x_t)
            total = total + loss
        return total

    def unrolled(step, state):
        return unroll(step, state, x, module=cell, reduce="sum", budget=budget)[0]

    budget = 1
    with pytest.raises(BudgetTooSmall) as refusal:
        loss_of(unrolled)
    budget = refusal.value.minimum_budget_bytes
    expected, found = (gradients_of(cell, loss_of(run)) for run in (plain, unrolled))
    torch.testing.assert_close(found, expected)


class Warmer(TorchFunctionMode):
    """Simulates a device whose tanh is another one."""

    def __torch_function__(self, function, types, given=(), options=None):
        result = function(*given, **(options or {}))
        return 1.3 * result if function is torch.tanh else result


@pytest.fixture
def _default_dtype():
    before = torch.get_default_dtype()
    yield
    torch.set_default_dtype(before)


@pytest.mark.usefixtures("_default_dtype")
@pytest.mark.parametrize("what", ["mode", "dtype"])
def test_steps_run_again_with_the_modes_and_the_default_type_of_the_forward_pass(what):
    """Outside of them they computed, and drew, other numbers"""
    layer, x = nn.Linear(8, 5), torch.randn(12, 4, 3)

    def step(h, x_t):
        h = torch.tanh(layer(torch.cat([h, x_t], 1)) + 0.3 * torch.randn(4, 5).to(h))
        return h, h.square().mean()

    def found(plan):
        torch.manual_seed(0)
        torch.set_default_dtype(torch.float32)
        with Warmer() if what == "mode" else nullcontext():
            options = {"module": layer, "reduce": "sum", "plan": plan}
            loss, _ = unroll(step, torch.zeros(4, 5), x, **options)
        torch.set_default_dtype(torch.float64 if what == "dtype" else torch.float32)
        return gradients_of(layer, loss)

    torch.testing.assert_close(found(checkpoint_every(12, 2, 2)), found(tape_everything(12, 2)))


class Dimmer(TorchDispatchMode):
    """Simulates a device whose products are others; it sees the operations of backward passes, too."""

    def __torch_dispatch__(self, function, types, given=(), options=None):
        result = function(*given, **(options or {}))
        products = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)
        return 0.7 * result if function in products else result


@pytest.mark.parametrize("around", [{"forward"}, {"backward"}])
def test_steps_run_again_with_the_dispatch_modes_of_the_forward_pass(around):
    """And the backward pass with those that the caller has then, as that of a plain loop does"""
    torch.manual_seed(0)
    layer, x = nn.Linear(8, 5), torch.randn(12, 4, 3)

    def step(h, x_t):
        h = torch.tanh(layer(torch.cat([h, x_t], 1)))
        return h, h.square().mean()

    def found(plan):
        with Dimmer() if "forward" in around else nullcontext():
            loss, _ = unroll(step, torch.zeros(4, 5), x, module=layer, reduce="sum", plan=plan)
        with Dimmer() if "backward" in around else nullcontext():
            return gradients_of(layer, loss)

    torch.testing.assert_close(found(checkpoint_every(12, 2, 2)), found(tape_everything(12, 2)))
