"""Weights that are computed for each call: what that takes is part of the call's budget."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.utils import parametrize, prune  # noqa: E402
from torch.nn.utils import weight_norm as hooked_norm  # noqa: E402
from torch.nn.utils.parametrizations import spectral_norm, weight_norm  # noqa: E402

from executor import GRU, BudgetTooSmall  # noqa: E402
from executor.drop_ins.computed_weights import computing_bytes  # noqa: E402
from executor.measure import measure  # noqa: E402
from executor.reversible import RevLSTM  # noqa: E402

torch.set_num_threads(1)

INPUT, HIDDEN = 4, 32


class Dropped(nn.Module):
    """DropConnect: a weight without half of its entries."""

    def forward(self, weight):
        return nn.functional.dropout(weight, 0.5, self.training)


def drop(module, name):
    parametrize.register_parametrization(module, name, Dropped())


def pruned(module, name):
    prune.random_unstructured(module, name, 0.5)


def drop_in(budget, how):
    module = GRU(nn.GRU(INPUT, HIDDEN), budget=budget)
    how(module, "weight_hh_l0")
    return module


def reversible(budget, how):
    module = RevLSTM(INPUT, HIDDEN, budget=budget)
    how(module, "weight_hh_l0")
    return module


@pytest.mark.parametrize(
    ("kind", "how"), [(drop_in, drop), (drop_in, weight_norm), (reversible, spectral_norm)]
)
def test_a_call_that_computes_its_weights_keeps_its_budget(kind, how):
    """They were beside it: with dropped weights a call held 70 % more than it was given"""
    x = torch.randn(4, 2, INPUT)
    with pytest.raises(BudgetTooSmall) as refusal:
        kind(1, how)(x)
    least = refusal.value.minimum_budget_bytes
    module = kind(least, how)
    streams = torch.get_rng_state()
    computing_bytes(module)
    assert torch.equal(torch.get_rng_state(), streams)
    assert measure(lambda: module(x)[0].sum().backward(), device="cpu").peak_bytes <= least
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_one_call_drops_weights_once_with_a_budget_and_without():
    """Every segment dropped others: a budget made another model of it"""
    torch.manual_seed(1)
    module, x = reversible(None, drop).double(), torch.randn(12, 2, INPUT, dtype=torch.float64)
    found = []
    for budget in (None, "256KiB"):
        module.budget = budget
        torch.manual_seed(2)
        loss = module(x)[0].sum()
        found.append(torch.autograd.grad(loss, list(module.parameters())))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("how", [pruned, hooked_norm])
def test_weights_that_hooks_compute_are_part_of_the_budget(how):
    """Gradients of masks and norms came on top of the budget. Measuring leaves the call's weight alone"""
    x = torch.randn(4, 2, INPUT)
    with pytest.raises(BudgetTooSmall) as refusal:
        drop_in(1, how)(x)
    least = refusal.value.minimum_budget_bytes
    module = drop_in(least, how)
    weight = module.weight_hh_l0
    computing_bytes(module)
    assert module.weight_hh_l0 is weight
    assert measure(lambda: module(x)[0].sum().backward(), device="cpu").peak_bytes <= least
    assert all(parameter.grad is not None for parameter in module.parameters())
