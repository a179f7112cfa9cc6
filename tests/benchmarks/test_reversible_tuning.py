"""How settings are chosen for the comparison of reversible layers with others."""

from __future__ import annotations

from dataclasses import asdict

import pytest

pytest.importorskip("torch")

from benchmarks.reversible.tuning import LEARNING_RATES, OF_WORDS, Settings, _next, chosen, for_all


def search(perplexity):
    """All settings tried, in order, where `perplexity(rate, bias)` is what each gives."""
    tried = []
    while (settings := _next(tried)) is not None:
        tried.append(
            {
                "model": "gru",
                "learning_rate": settings.learning_rate,
                "forget_bias": settings.forget_bias,
                "validation_perplexity": perplexity(settings.learning_rate, settings.forget_bias),
            }
        )
    return tried


def test_every_rate_is_tried_and_then_biases_at_the_best():
    tried = search(lambda rate, bias: abs(rate - 0.01) + abs(bias))
    assert [row["learning_rate"] for row in tried[:4]] == list(LEARNING_RATES)
    assert [(row["learning_rate"], row["forget_bias"]) for row in tried[4:]] == [(0.01, 1.0), (0.01, -1.0)]
    assert chosen(tried) == {"gru": Settings(0.01, 0.0)}


def test_the_search_goes_on_beyond_the_largest_rate_and_the_least_bias():
    tried = search(lambda rate, bias: abs(rate - 0.16) + abs(bias + 3))
    assert chosen(tried) == {"gru": Settings(0.16, -3.0)}
    assert max(row["learning_rate"] for row in tried) == 0.32
    assert min(row["forget_bias"] for row in tried) == -4.0


def test_dropout_is_searched_in_both_directions_at_the_best_rate():
    tried = []
    while (settings := _next(tried, OF_WORDS)) is not None:
        distance = abs(settings.learning_rate - 0.005) + abs(settings.dropout - 0.2)
        tried.append({"model": "gru", **asdict(settings), "validation_perplexity": distance})
    assert chosen(tried) == {"gru": Settings(0.005, 0.0, 0.2)}
    assert [row["learning_rate"] for row in tried[:5]] == [0.01, 0.02, 0.04, 0.005, 0.0025]
    assert [row["dropout"] for row in tried[5:]] == [0.3, 0.5, 0.2, 0.1]


def test_limits_without_settings_of_their_own_take_those_of_the_strictest():
    plain, strictest, own = Settings(0.01), Settings(0.02), Settings(0.04)
    found = {"gru": plain, "revgru n=2": strictest, "revgru n=5": own}
    expected = {"gru": plain, "revgru n=2": strictest, "revgru n=3": strictest, "revgru n=5": own}
    assert for_all("gru", found) == expected
