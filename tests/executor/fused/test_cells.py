"""The cells on our kernels are torch's cells, alone and in an unrolled loop."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.utils import prune

from executor import unroll
from executor.fused.cells import GRUCell, LSTMCell
from executor.plan import checkpoint_every, tape_everything

torch.set_num_threads(1)
STEPS, BATCH, INPUT, HIDDEN = 12, 8, 5, 6
CELLS = {"lstm": (nn.LSTMCell, LSTMCell), "gru": (nn.GRUCell, GRUCell)}
PLANS = {
    "everything taped": tape_everything(STEPS, 1),
    "tapes of four steps": checkpoint_every(STEPS, 4, 1),
    "tapes of one step": checkpoint_every(STEPS, 1, 5),
}


def torch_loop(kind, cell, x, state):
    """The sum of squares of all h, step by step."""
    total = x.new_zeros(())
    for x_t in x.unbind(0):
        after = cell(x_t, state if kind == "lstm" else state[0])
        state = after if kind == "lstm" else (after,)
        total = total + state[0].square().sum()
    return total


def unrolled(kind, cell, x, state, plan):
    """The same under `unroll`."""

    def step(state, x_t):
        after = cell(x_t, state if kind == "lstm" else state[0])
        after = after if kind == "lstm" else (after,)
        return after, after[0].square().sum()

    return unroll(step, state, x, plan=plan, module=cell, reduce="sum")[0]


@pytest.mark.parametrize("batch", [BATCH, 1], ids=["own kernels", "mostly padding: torch's"])
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("kind", CELLS)
def test_gradients_in_a_loop_are_those_of_the_torch_cell(kind, plan, batch):
    """Parameters, inputs and initial state, to the rounding of float64"""
    torch_class, own_class = CELLS[kind]
    cell = torch_class(INPUT, HIDDEN, dtype=torch.float64)
    x = torch.randn(STEPS, batch, INPUT, dtype=torch.float64, requires_grad=True)
    parts = 2 if kind == "lstm" else 1
    state = tuple(torch.randn(batch, HIDDEN, dtype=torch.float64, requires_grad=True) for _ in range(parts))
    leaves = [x, *state, *cell.parameters()]
    expected = torch.autograd.grad(torch_loop(kind, cell, x, state), leaves)
    own = own_class.from_torch(cell)
    found = torch.autograd.grad(unrolled(kind, own, x, state, PLANS[plan]), leaves)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("is_unrolled", [False, True])
@pytest.mark.parametrize("kind", CELLS)
def test_h_may_be_changed_in_place_after_a_step(kind, is_unrolled):
    """A loop that resets finished sequences has the gradients that it has with torch's cells"""
    torch_class, own_class = CELLS[kind]
    cell = torch_class(INPUT, HIDDEN, dtype=torch.float64)
    x = torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64, requires_grad=True)
    state = tuple(torch.zeros(BATCH, HIDDEN, dtype=torch.float64) for _ in range(2 if kind == "lstm" else 1))
    done = torch.rand(BATCH) < 0.5

    def resetting(cell):
        def step(x_t, state):
            after = cell(x_t, state)
            (after[0] if kind == "lstm" else after)[done] = 0
            return after

        return step

    leaves = [x, *cell.parameters()]
    expected = torch.autograd.grad(torch_loop(kind, resetting(cell), x, state), leaves)
    own = own_class.from_torch(cell)
    if is_unrolled:
        step = resetting(own)

        def of_state(state, x_t):
            after = step(x_t, state if kind == "lstm" else state[0])
            after = after if kind == "lstm" else (after,)
            return after, after[0].square().sum()

        loss, _ = unroll(of_state, state, x, module=own, reduce="sum", budget="1MiB")
    else:
        loss = torch_loop(kind, resetting(own), x, state)
    torch.testing.assert_close(torch.autograd.grad(loss, leaves), expected, rtol=1e-12, atol=1e-13)


def test_parameters_are_shared_under_the_same_names():
    """The cell holds the very parameters of the torch cell"""
    cell = nn.GRUCell(2, 3, bias=False)
    assert dict(GRUCell.from_torch(cell).named_parameters()) == dict(cell.named_parameters())


def test_another_kind_of_cell_is_refused():
    """A GRU cell is no LSTM cell"""
    with pytest.raises(TypeError, match=r"LSTMCell takes over a torch\.nn\.LSTMCell, not a GRUCell"):
        LSTMCell.from_torch(nn.GRUCell(2, 2))


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("shape", [(BATCH // 2, HIDDEN), (1, HIDDEN), (HIDDEN,), (BATCH, HIDDEN + 1)])
def test_a_state_of_another_batch_or_size_is_refused(kind, shape):
    """As torch's cells refuse it; our kernels would write past it"""
    torch_class, own_class = CELLS[kind]
    own, wrong = own_class.from_torch(torch_class(INPUT, HIDDEN)), torch.zeros(shape)
    with pytest.raises(RuntimeError):  # torch's own
        own(torch.randn(BATCH, INPUT), (torch.zeros(BATCH, HIDDEN), wrong) if kind == "lstm" else wrong)


@pytest.mark.parametrize("kind", CELLS)
def test_inputs_and_states_that_torch_s_cell_refuses_are_refused(kind):
    """Inputs of another width, of another type, and a state of another type than the inputs"""
    own = CELLS[kind][1].from_torch(CELLS[kind][0](INPUT, HIDDEN))
    h = torch.zeros(BATCH, HIDDEN)

    def run(x, h):
        return own(x, (h, h) if kind == "lstm" else h)

    for x, state in (
        (torch.randn(BATCH, INPUT - 1), h),
        (torch.randn(BATCH, INPUT).double(), h.double()),
        (torch.randn(BATCH, INPUT), h.double()),
    ):
        with pytest.raises(RuntimeError):
            run(x, state)
    with pytest.raises(ValueError, match="1D or 2D"):
        run(torch.randn(1, BATCH, INPUT), h)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(BATCH, INPUT), (INPUT,)], ids=["batch", "one"])
@pytest.mark.parametrize("kind", CELLS)
def test_no_state_is_zeros_and_there_need_be_no_batch(kind, shape, bias):
    """As for torch's cells: a step from nothing and the next one, with and without biases"""
    cell = CELLS[kind][0](INPUT, HIDDEN, bias=bias, dtype=torch.float64)
    own, x = CELLS[kind][1].from_torch(cell), torch.randn(shape, dtype=torch.float64)
    for state in (None, cell(x)):
        torch.testing.assert_close(own(x, state), cell(x, state), rtol=1e-12, atol=1e-13)


# Forward mode loads decompositions that torch compiles with torch.jit.
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
@pytest.mark.parametrize("kind", CELLS)
def test_transforms_and_forward_mode_are_those_of_the_torch_cell(kind):
    """Which are not in the kernels: torch said what a function of ours should override"""
    cell = CELLS[kind][0](INPUT, HIDDEN, dtype=torch.float64)
    own, x = CELLS[kind][1].from_torch(cell), torch.randn(BATCH, INPUT, dtype=torch.float64)

    def derivatives(each):
        def loss(weights, x):
            after = torch.func.functional_call(each, weights, x)
            return (after[0] if kind == "lstm" else after).square().sum()

        weights = dict(each.named_parameters())
        with forward_ad.dual_level():
            dual = loss(weights, forward_ad.make_dual(x, torch.ones_like(x)))
            tangent = forward_ad.unpack_dual(dual).tangent
        return torch.func.grad(loss)(weights, x), torch.func.jvp(partial(loss, weights), (x,), (x,)), tangent

    torch.testing.assert_close(derivatives(own), derivatives(cell), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", CELLS)
def test_weights_may_lie_across_in_memory(kind):
    """Of transposed matrices and a strided bias the values count: results and gradients are torch's"""
    cell = CELLS[kind][0](HIDDEN, HIDDEN, dtype=torch.float64)
    for name in ("weight_ih", "weight_hh"):
        setattr(cell, name, nn.Parameter(getattr(cell, name).detach().t().contiguous().t()))
    cell.bias_hh = nn.Parameter(torch.randn(len(cell.bias_hh), 2, dtype=torch.float64)[:, 0])
    x = torch.randn(BATCH, HIDDEN, dtype=torch.float64)
    found, expected = (
        torch.autograd.grad(
            sum(part.square().sum() for part in (after if kind == "lstm" else [after])), [*cell.parameters()]
        )
        for after in (each(x) for each in (CELLS[kind][1].from_torch(cell), cell))
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", CELLS)
def test_tied_weights_are_taken_over_and_computed_ones_are_refused(kind):
    """A tied weight stands under both names; of a pruned cell the hook would stay behind"""
    cell = CELLS[kind][0](HIDDEN, HIDDEN, dtype=torch.float64)
    cell.weight_hh = cell.weight_ih
    own, x = CELLS[kind][1].from_torch(cell), torch.randn(BATCH, HIDDEN, dtype=torch.float64)
    assert own.weight_hh is own.weight_ih
    torch.testing.assert_close(own(x), cell(x), rtol=1e-12, atol=1e-13)
    pruned = CELLS[kind][0](INPUT, HIDDEN)
    prune.random_unstructured(pruned, "weight_hh", amount=0.5)
    with pytest.raises(TypeError, match=r"weight_hh of the \w+Cell is computed by a hook"):
        CELLS[kind][1].from_torch(pruned)
