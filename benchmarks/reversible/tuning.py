"""Settings of every model for `quality`, reversible or not, chosen by one procedure on the validation text.

First a learning rate, then with the best of them a shift of the forget gates' initial bias; while the
largest rate or the least bias is the best, the next one is tried. Short trainings, and a seed that the
comparison does not use.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from benchmarks.reversible.language import Corpus
from benchmarks.reversible.quality import Settings, Training, models, nats_per_character, train

LEARNING_RATES = (0.005, 0.01, 0.02, 0.04)
FORGET_BIASES = (1.0, -1.0)
ITERATIONS = 300
SEED = 100
Row = dict[str, Any]


def rows(kind: str, training: Training, done: Sequence[Row]) -> Iterator[Row]:
    """Validation perplexity of every model of a kind under each of its settings that is not `done`."""
    short = replace(training, iterations=ITERATIONS)
    corpus = Corpus.of_python(short.batch_size)
    for name, make in models(kind, short, corpus.vocabulary_size).items():
        tried = [row for row in done if row["model"] == name]
        while (settings := _next(tried)) is not None:
            torch.manual_seed(SEED)
            model = make()
            seconds = train(model, corpus, short, settings)
            nats = nats_per_character(model, corpus.validation, short.length)
            result = {"validation_perplexity": math.exp(nats), "processor_seconds": seconds}
            row = {"model": name, "iterations": ITERATIONS, **asdict(settings), **result}
            tried.append(row)
            yield row


def chosen(found: Sequence[Row]) -> dict[str, Settings]:
    """The best settings of every model in the rows."""
    return {name: _best([row for row in found if row["model"] == name]) for name in _names(found)}


def _names(found: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["model"] for row in found))


def _best(tried: Sequence[Row]) -> Settings:
    row = min(tried, key=lambda row: row["validation_perplexity"])
    return Settings(row["learning_rate"], row["forget_bias"])


def _next(tried: Sequence[Row]) -> Settings | None:
    """The first settings still to be tried; None when all have been."""
    rates = [Settings(rate, 0.0) for rate in LEARNING_RATES]
    unshifted = [row for row in tried if row["forget_bias"] == 0.0]
    if (waiting := _first_untried(rates, tried)) or not unshifted:
        return waiting
    best = _best(unshifted)
    if best.learning_rate == max(row["learning_rate"] for row in unshifted):
        return replace(best, learning_rate=2 * best.learning_rate)
    biases = [replace(best, forget_bias=bias) for bias in FORGET_BIASES]
    if waiting := _first_untried(biases, tried):
        return waiting
    best = _best(tried)
    at_edge = 0 > best.forget_bias == min(row["forget_bias"] for row in tried)
    return replace(best, forget_bias=best.forget_bias - 1) if at_edge else None


def _first_untried(settings: Sequence[Settings], tried: Sequence[Row]) -> Settings | None:
    seen = {Settings(row["learning_rate"], row["forget_bias"]) for row in tried}
    return next((one for one in settings if one not in seen), None)
