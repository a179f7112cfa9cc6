"""Loops within parametrize.cached(): one weight for all steps, as in a plain loop"""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from executor import BudgetTooSmall, measure, unroll

STEPS, BATCH, SIZE = 30, 3, 8


class Dropped(nn.Module):
    """DropConnect: a weight without half of its entries."""

    def forward(self, weight):
        return nn.functional.dropout(weight, 0.5, self.training)


def drop(module, name):
    parametrize.register_parametrization(module, name, Dropped())


def loop(how, *, budget, steps=STEPS, size=SIZE):
    """A cell whose weight is computed, and a function that runs it and sums up its outputs."""
    torch.manual_seed(0)
    cell = nn.GRUCell(size, size).double()
    how(cell, "weight_hh")
    x = torch.randn(steps, BATCH, size, dtype=torch.float64)

    def step(h, x_t):
        h = cell(x_t, h)
        return h, h.square().mean()

    def run():
        if budget is not None:
            return unroll(step, torch.zeros_like(x[0]), x, module=cell, reduce="sum", budget=budget)[0]
        h, total = torch.zeros_like(x[0]), 0
        for x_t in x:
            h, y = step(h, x_t)
            total = total + y
        return total

    return cell, run


@pytest.mark.parametrize("how", [drop, spectral_norm])
def test_a_weight_that_is_cached_is_one_for_all_steps(how):
    """Each tape computed another: other masks, norms that had moved on; the first call was refused"""
    found = []
    for budget in ("60KiB", None):
        cell, run = loop(how, budget=budget)
        with parametrize.cached():
            total = run() + run()
            streams = torch.get_rng_state()
        total.backward()
        found.append([total.detach(), *(p.grad for p in cell.parameters()), *cell.buffers(), streams])
    torch.testing.assert_close(*found, rtol=1e-11, atol=1e-13)


def test_what_computing_it_takes_is_part_of_the_budget():
    """The weight, its mask, and what is left of them for the backward pass"""
    few = {"steps": 4, "size": 32}

    def iteration(run):
        with parametrize.cached():
            total = run()
        total.backward()

    with pytest.raises(BudgetTooSmall) as refusal:
        iteration(loop(drop, budget=1, **few)[1])
    least = refusal.value.minimum_budget_bytes
    cell, run = loop(drop, budget=least, **few)
    iteration(run)
    cell.zero_grad()
    assert measure(lambda: iteration(run), device="cpu").peak_bytes <= least


def test_nothing_is_cached_for_later_where_gradients_are_off():
    """A validation run within the same context: weights it does not use would be constants from then on"""
    cell, run = loop(drop, budget="60KiB")
    other = nn.Linear(2, 2)
    drop(other, "weight")
    with parametrize.cached():
        with torch.no_grad():
            unroll(lambda h, _: (h, h), torch.zeros(2), torch.zeros(4, 2), module=[cell, other], budget=1)
        weight = other.weight
        run().backward()
        assert other.weight is weight  # neither the loop nor its backward pass forgot it
        other(torch.ones(2)).sum().backward()
    assert all(parameter.grad is not None for parameter in (*cell.parameters(), *other.parameters()))
