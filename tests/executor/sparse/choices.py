"""Decides for tests which products run, whatever is faster at their small sizes."""

from __future__ import annotations

import executor.sparse.columns as columns_module
import executor.sparse.mixed as mixed_module
import executor.sparse.rows as rows_module
from executor.sparse.faster import Fastest
from executor.sparse.gathered import GatheredProducts


def leave_out_with(monkeypatch, products=None) -> None:
    """What is dropped is left out, by `products` or by gathering copies."""
    _choose(monkeypatch, products or GatheredProducts(), pays=True)


def multiply_zeros(monkeypatch) -> None:
    """Nothing is left out: what is dropped is multiplied as zeros."""
    _choose(monkeypatch, GatheredProducts(), pays=False)


def _choose(monkeypatch, products, *, pays) -> None:
    chosen = Fastest(products, pays)
    for module, name in (
        (columns_module, "fastest_columns"),
        (mixed_module, "fastest_rows"),
        (rows_module, "fastest_sequences"),
    ):
        monkeypatch.setattr(module, name, lambda *_, **__: chosen)
    monkeypatch.setattr(columns_module, "fastest_outer_columns", lambda *_, **__: products)
