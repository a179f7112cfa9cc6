"""Tensors that steps leave behind besides states and outputs: last values in attributes, lists that grow."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from executor import BudgetTooSmall, GrowingMemory, measure, predict, probe, unroll
from executor.probing.left_behind import living_tensors
from tests.executor.loops import BATCH, SIZE, STEPS

PLACES = 500


class Attention(nn.Module):
    """A decoder that keeps the weights it computed last, for whoever wants to look at them."""

    def __init__(self, keep: Callable[[Any, Tensor], None]) -> None:
        super().__init__()
        self.cell, self.query = nn.GRUCell(2 * SIZE, SIZE), nn.Linear(SIZE, SIZE)
        self.register_buffer("memory", torch.randn(PLACES, BATCH, SIZE))
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(BATCH, SIZE))
        self.keep = keep
        self.weights: Any = None
        self.table = torch.randn(PLACES)

    def forward(self, state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        weights = torch.softmax(torch.einsum("bh,sbh->bs", self.query(state), self.memory), -1)
        self.keep(self, weights)
        context = torch.einsum("bs,sbh->bh", weights, self.memory)
        state = self.cell(torch.cat([x, context], -1), state)
        self.mean = 0.9 * self.mean + 0.1 * state.detach()
        return state, state.square().mean() + self.table[0]


def in_an_attribute(module: Attention, weights: Tensor) -> None:
    module.weights = weights


def nowhere(_module: Attention, _weights: Tensor) -> None:
    pass


def as_numbers(module: Attention, weights: Tensor) -> None:
    module.weights = [*(module.weights or []), weights.detach().mean()]


def in_a_list(module: Attention, weights: Tensor) -> None:
    module.weights = [*(module.weights or []), weights.detach()]


def _loop(keep: Callable[[Any, Tensor], None]) -> tuple[Attention, dict[str, Any]]:
    torch.manual_seed(0)
    module = Attention(keep)
    given = {"state": torch.zeros(BATCH, SIZE), "inputs": torch.randn(STEPS, BATCH, SIZE)}
    return module, {"step": module, "module": module, "reduce": "sum", **given}


def test_what_the_last_step_left_is_within_the_budget() -> None:
    """Tapes were measured smaller than they were, by the weights that the step before had left: a plan took
    five times its budget
    """
    module, loop = _loop(in_an_attribute)
    with pytest.raises(BudgetTooSmall) as refusal:
        unroll(**loop, budget=1)
    least = refusal.value.minimum_budget_bytes
    full = predict(**loop, budget=2**30).full_bptt_peak_bytes
    for budget in (least, (9 * least + full) // 10):

        def run(budget: int = budget) -> None:
            loss, _ = unroll(**loop, budget=budget)
            loss.backward()

        module.zero_grad()
        predict(**loop, budget=budget)
        assert measure(run).peak_bytes <= budget


def test_only_what_steps_put_in_the_place_of_another_counts() -> None:
    """Buffers that they replace are part of a state; what stays where it is was there before. The graph of
    what is kept, with gradients at its ends, is cut off: it doubled the least budget.
    """
    kept = probe(**_loop(in_an_attribute)[1], candidates=[1]).segments[0]
    assert BATCH * PLACES * 4 <= kept.left_bytes < 1.1 * BATCH * PLACES * 4
    for keep in (nowhere, as_numbers):
        assert probe(**_loop(keep)[1], candidates=[1]).segments[0].left_bytes == 0


def test_what_is_held_while_cudas_counters_are_read_is_all_that_python_holds() -> None:
    """In the dictionary of a hook, say: what the next step puts in its place would hide as many bytes"""
    kept: dict[str, Tensor] = {}
    layer = nn.Linear(SIZE, SIZE)
    layer.register_forward_hook(lambda _module, _given, output: kept.update(last=output))
    layer(torch.zeros(1, SIZE))
    assert any(each is kept["last"] for each in living_tensors())


def test_steps_that_keep_more_and_more_are_refused() -> None:
    """A list of all weights grew with the length, and with every step that ran again"""
    with pytest.raises(GrowingMemory, match="return them as a part of the output") as refusal:
        partial(unroll, **_loop(in_a_list)[1])(budget=2**30)
    assert refusal.value.step_bytes == BATCH * PLACES * 4


class Dated(nn.Module):
    """Keeps an embedding of every time that it met."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(SIZE, SIZE)
        self.embeddings: dict[int, Tensor] = {}

    def forward(self, state: Tensor, t: int) -> tuple[Tensor, Tensor]:
        if t not in self.embeddings:
            self.embeddings[t] = torch.sin(torch.arange(PLACES * SIZE).view(PLACES, SIZE) * (t + 1.0))
        state = torch.tanh(self.linear(state) + self.embeddings[t])
        return state, state.square().mean()


def test_what_every_step_keeps_for_itself_counts_in_the_call_that_fills_it() -> None:
    """Steps that ran again had theirs already, and no entry was counted: six budgets in the first call"""
    torch.manual_seed(0)
    module, state, steps = Dated(), torch.zeros(PLACES, SIZE), 40
    loop = {"module": module, "reduce": "sum", "length": steps, "final_state": "detached"}
    with pytest.raises(BudgetTooSmall) as refused:
        predict(module, state, lambda t: t, budget=1, **loop)
    assert not module.embeddings
    budget = refused.value.minimum_budget_bytes
    names = [line.name for line in predict(module, state, lambda t: t, budget=budget, **loop).static]
    assert names.count("kept by steps") == 1

    def train() -> None:
        unroll(module, state, lambda t: t, budget=budget, **loop)[0].backward()

    assert 0.9 * budget < measure(train, device="cpu").peak_bytes <= budget
    module.zero_grad(set_to_none=True)
    kept_bytes = steps * state.nbytes
    with pytest.raises(BudgetTooSmall) as refused:
        predict(module, state, lambda t: t, budget=1, **loop)
    assert refused.value.minimum_budget_bytes == pytest.approx(budget - kept_bytes, rel=0.01)
