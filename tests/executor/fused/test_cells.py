"""The cells on our kernels are torch's cells, alone and in an unrolled loop."""

import pytest
import torch
from torch import nn

from executor import unroll
from executor.errors import StateChanged
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
    with pytest.raises((StateChanged, RuntimeError)):  # torch's own where there is no C compiler
        own(torch.randn(BATCH, INPUT), (torch.zeros(BATCH, HIDDEN), wrong) if kind == "lstm" else wrong)
