"""The tables of the page about reversible layers."""

from __future__ import annotations

import json
from statistics import mean

import pytest

from benchmarks.machine import RESULTS
from benchmarks.reversible.table import PAGE, TABLES, renewed


def test_the_page_shows_every_result_file_as_it_is():
    """`python -m benchmarks.reversible.table` renews the page."""
    page = PAGE.read_text()
    assert all(f"<!-- table {name} -->" in page for name in TABLES)
    assert renewed(page) == page


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_the_quality_that_the_page_claims_is_in_the_result_files(kind):
    """Three seeds, equal parameter counts, and on average at most 2 % above the plain perplexity."""
    rows = json.loads((RESULTS / f"reversible-words-{kind}.json").read_text())["rows"]
    found = {(row["model"], row["seed"]): row["perplexity"] for row in rows}
    names = [kind, *(f"rev{kind} n={limit}" for limit in (2, 3, 5))]
    assert set(found) == {(name, seed) for name in names for seed in range(3)}
    for name in names:
        assert mean(found[name, seed] / found[kind, seed] for seed in range(3)) <= 1.02
    counts = [row["parameters"] for row in rows]
    assert max(counts) <= 1.01 * min(counts)
