"""Triton's products over indices are those of gathered copies, up to the rounding of float32 sums."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from tests.executor.triton_devices import DEVICES  # noqa: E402, I001 - first: it sets the scene

from executor.sparse import SparseGRU, SparseLSTM, choice  # noqa: E402
from executor.sparse.gathered import GatheredProducts  # noqa: E402
from executor.sparse.triton_kernels import TILES, IndexedProducts  # noqa: E402
from tests.executor.sparse.choices import leave_out_with  # noqa: E402

RULES = (
    {"rule": "columns", "keep_ratio": 0.25},
    {"rule": "blocks", "keep_ratio": 0.25},
    {"rule": "rows", "keep_ratio": 0.5},
    {"rule": "mixed", "keep_ratio": 0.25},
)
SIZES = [(1, 4, 1, 1), (5, 24, 3, 7), (33, 130, 65, 70), (16, 128, 32, 64)]
"""Rows N, columns C, how many of either are kept, width."""

pytestmark = pytest.mark.parametrize("device", DEVICES)


class Operands:
    """Random matrices, of rows that are longer than what is used of them, and indices into them."""

    def __init__(self, size, device):
        self.rows, self.columns, kept, self.width = size
        self.gradient = self.matrix(self.rows, self.columns, device)
        self.weight = self.matrix(self.columns, self.width, device)
        self.inputs = self.matrix(self.rows, self.width, device)
        self.kept_columns = self.some_of(self.columns, kept, device)
        self.kept_rows = self.some_of(self.rows, kept, device)

    def matrix(self, rows, columns, device):
        return torch.randn(rows, columns + 3, device=device)[:, :columns]

    def some_of(self, count, kept, device):
        return torch.randperm(count)[:kept].sort().values.to(device)


def assert_both_give_the_same(device, size, tile, function):
    """`function` of the products and the operands, with a margin that grows with the length of its sums."""
    operands = Operands(size, device)
    found, expected = (
        function(products, operands) for products in (IndexedProducts(tile), GatheredProducts())
    )
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * max(size) ** 0.5)


all_sizes = pytest.mark.parametrize("size", SIZES, ids=str)


@all_sizes
@pytest.mark.parametrize("tile", TILES[:2], ids=str)
def test_through_the_kept_columns(device, size, tile):
    assert_both_give_the_same(
        device, size, tile, lambda p, o: p.through_columns(o.weight, o.kept_columns)(o.gradient)
    )


@all_sizes
def test_columns_are_added_to_a_sum(device, size):
    """Rows of the sum that belong to no kept column stay as they are."""

    def added(products, operands):
        total = torch.ones(operands.columns, operands.width, device=device)
        products.add_columns(total, operands.gradient, operands.inputs, operands.kept_columns)
        return total

    assert_both_give_the_same(device, size, TILES[1], added)


@all_sizes
@pytest.mark.parametrize("scaled", [False, True])
def test_sums_over_rows(device, size, scaled):
    """Rows may be drawn more than once, each time with its scale."""

    def summed(products, operands):
        rows = torch.cat([operands.kept_rows, operands.kept_rows[:1]]).sort().values
        scales = torch.linspace(0.5, 3, len(rows), device=device) if scaled else None
        return torch.cat(
            products.of_rows(operands.gradient, (operands.inputs, operands.inputs[:, :1]), rows, scales),
            dim=1,
        )

    assert_both_give_the_same(device, size, TILES[2], summed)


@all_sizes
def test_rows_among_zeros(device, size):
    assert_both_give_the_same(
        device, size, TILES[3], lambda p, o: p.at_rows(o.gradient, o.weight, o.kept_rows)
    )


@pytest.mark.parametrize("kind", [SparseLSTM, SparseGRU])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["rule"])
def test_layers_get_the_gradients_of_gathered_copies(device, kind, rule, monkeypatch):
    """Two layers, input gradients included; a last stretch that is shorter."""
    module = kind(16, 16, 2, **rule).to(device)
    x = torch.randn(28, 6, 16).to(device).requires_grad_()
    found = []
    for products in (IndexedProducts(TILES[0]), GatheredProducts()):
        leave_out_with(monkeypatch, products)
        module.sparsifier.restart(0)
        loss = module(x)[0].square().sum()
        found.append(torch.autograd.grad(loss, [x, *module.parameters()]))
        assert module.end_iteration().saved_ratio > 0
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


def test_the_trial_accepts_products_that_work(device):
    assert len(choice.tried(torch.device(device))) == len(TILES)


def test_the_trial_refuses_products_that_do_not(device, monkeypatch):
    monkeypatch.setattr(IndexedProducts, "_sum_over", lambda _self, a, b, *_: torch.zeros(2, 2))
    with pytest.raises(RuntimeError, match="two ones times two ones were computed to be"):
        choice.tried(torch.device(device))
