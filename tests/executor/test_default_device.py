"""Whoever sets a default device gets nothing of ours there: tensors without a place of their own are on the
CPU. The default is `meta` here, on which whatever lands by mistake has no values.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from executor import GRU, LSTM, unroll
from executor.reversible import RevGRU
from executor.sparse import SparseAudit, SparseLSTM
from planner_service.chain import BudgetTooSmall

STEPS, BATCH, SIZE = 40, 3, 16


def loop(*, budget: int, host_budget: int | None = None) -> Tensor:
    torch.manual_seed(0)
    cell, x = nn.GRUCell(SIZE, SIZE), torch.randn(STEPS, BATCH, SIZE)
    state = torch.zeros(BATCH, SIZE, requires_grad=True)

    def step(h: Tensor, x_t: Tensor) -> tuple[Tensor, Tensor]:
        h = cell(x_t, h)
        return h, h.square().sum()

    def run() -> Tensor:
        loss, _ = unroll(
            step,
            state,
            x,
            module=cell,
            budget=budget,
            host_budget=host_budget,
            reduce="sum",
            final_state="detached",
        )
        return torch.autograd.grad(loss, state)[0]

    return in_either(run)


def in_either(run: Callable[[], Tensor]) -> Tensor:
    """What `run` gives under a default device; the same as without, bit for bit."""
    with torch.device("meta"):
        found = run()
    assert torch.equal(found, run())
    return found


def least_budget() -> int:
    with pytest.raises(BudgetTooSmall) as refusal:
        loop(budget=1)
    return refusal.value.minimum_budget_bytes


def test_a_loop_inside_a_budget():
    assert loop(budget=2 * least_budget()).abs().max() > 0


def test_states_that_move_to_the_host():
    assert loop(budget=int(1.05 * least_budget()), host_budget=2**20).abs().max() > 0


@pytest.mark.parametrize("kind", [LSTM, GRU])
def test_packed_sequences_in_both_directions(kind):
    module = kind.from_torch(kind.torch_class(SIZE, SIZE, bidirectional=True), budget="1MiB")
    x = torch.randn(STEPS, BATCH, SIZE, requires_grad=True)
    lengths = torch.tensor([STEPS, 30, 10])

    def run() -> Tensor:
        y, _ = module(pack_padded_sequence(x, lengths))
        return torch.autograd.grad(y.data.square().sum(), x)[0]

    assert in_either(run).abs().max() > 0


def test_reversible_layers():
    module = RevGRU(SIZE, SIZE, 2, forget_bits=3, dropout=0.2)
    x = torch.randn(STEPS, BATCH, SIZE, requires_grad=True)

    def run() -> Tensor:
        torch.manual_seed(2)
        return torch.autograd.grad(module(x)[0].square().sum(), x)[0]

    assert in_either(run).abs().max() > 0


@pytest.mark.parametrize("rule", ["columns", "rows", "mixed", "top"])
def test_sparsified_layers_and_their_books(rule):
    module = SparseLSTM(SIZE, SIZE, rule=rule)
    x = torch.randn(STEPS, BATCH, SIZE)

    def loss() -> Tensor:
        return module(x)[0].square().sum()

    with torch.device("meta"):
        audit = SparseAudit(module, cosine_every=1)
        audit.start(iteration=0)
        audit.compare(loss)
        module.zero_grad()
        loss().backward()
        audit.close()
        found = audit.measurement()
    assert 0 < found["sparsity"] < 1
    assert found["least_cosine"] > 0
