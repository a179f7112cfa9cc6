"""The tables of the page about reversible layers."""

from __future__ import annotations

from benchmarks.reversible.table import PAGE, TABLES, renewed


def test_the_page_shows_every_result_file_as_it_is():
    """`python -m benchmarks.reversible.table` renews the page."""
    page = PAGE.read_text()
    assert all(f"<!-- table {name} -->" in page for name in TABLES)
    assert renewed(page) == page
