"""Settings of every model for `quality`, reversible or not, chosen by one procedure on the validation text.

One setting after the other: some values are tried with the best of what was tried before, and on in the
same direction while the last one is the best. Short trainings, and a seed that the comparison does not use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch

from benchmarks.reversible.corpora import CORPORA
from benchmarks.reversible.quality import LIMITS, TRAININGS, Settings, models, names, perplexity, train

SEED = 100
Row = dict[str, Any]


@dataclass(frozen=True)
class Search:
    """Values of one setting."""

    name: str
    values: tuple[float, ...]
    """Tried in any case, in this order; the first one is that of the searches before."""
    above: Callable[[float], float] | None = None
    """The value to try when the largest one is the best; None for no other."""
    below: Callable[[float], float] | None = None
    """Likewise of the least."""


LEARNING_RATES = (0.005, 0.01, 0.02, 0.04)
OF_CHARACTERS = (
    Search("learning_rate", LEARNING_RATES, above=lambda rate: 2 * rate),
    Search("forget_bias", (0.0, 1.0, -1.0), below=lambda bias: bias - 1),
)
OF_WORDS = (
    Search("learning_rate", (0.01, 0.02, 0.04), above=lambda rate: 2 * rate, below=lambda rate: rate / 2),
    Search("dropout", (0.4, 0.3, 0.5), above=lambda p: round(p + 0.1, 1), below=lambda p: round(p - 0.1, 1)),
)


@dataclass(frozen=True)
class Procedure:
    """How settings are chosen on one text."""

    searches: tuple[Search, ...]
    """One after the other."""
    iterations: int
    """Of a trial."""
    limits: tuple[int, ...] = LIMITS
    """Of forgetting, whose models are searched; the first one's settings serve the others: see `for_all`."""


PROCEDURES = {
    "words": Procedure(OF_WORDS, iterations=450, limits=LIMITS[:1]),
    "characters": Procedure(OF_CHARACTERS, iterations=300),
}
"""By text. Of words a trial is as long as the comparison: in a longer one more dropout would be the best."""


def rows(text: str, kind: str, done: Sequence[Row]) -> Iterator[Row]:
    """Validation perplexity of every model of a kind under each of its settings that is not `done`."""
    procedure = PROCEDURES[text]
    short = replace(TRAININGS[text, kind], iterations=procedure.iterations)
    corpus = CORPORA[text](short.batch_size)
    makers = models(kind, short, corpus.vocabulary_size)
    for name in (kind, *names(kind, procedure.limits)):
        tried = [row for row in done if row["model"] == name]
        while (settings := _next(tried, procedure.searches)) is not None:
            torch.manual_seed(SEED)
            model = makers[name]()
            seconds = train(model, corpus, short, settings)
            found = perplexity(model, corpus.validation, short.length)
            result = {"validation_perplexity": found, "processor_seconds": seconds}
            row = {"model": name, "iterations": procedure.iterations, **asdict(settings), **result}
            tried.append(row)
            yield row


def chosen(found: Sequence[Row]) -> dict[str, Settings]:
    """The best settings of every model in the rows."""
    models_found = dict.fromkeys(row["model"] for row in found)
    return {name: _best([row for row in found if row["model"] == name]) for name in models_found}


def for_all(kind: str, found: Mapping[str, Settings]) -> dict[str, Settings]:
    """Settings of every model of a kind: its own, or where it has none those of the strictest limit."""
    strictest, *_ = every = names(kind)
    return {kind: found[kind], **{name: found.get(name, found[strictest]) for name in every}}


def _best(tried: Sequence[Row]) -> Settings:
    return _settings(min(tried, key=lambda row: row["validation_perplexity"]))


def _settings(row: Row) -> Settings:
    return Settings(**{field.name: row[field.name] for field in fields(Settings) if field.name in row})


def _next(tried: Sequence[Row], searches: Sequence[Search] = OF_CHARACTERS) -> Settings | None:
    """The first settings still to be tried; None when all have been."""
    found = {_settings(row): row["validation_perplexity"] for row in tried}
    best = Settings(**{search.name: search.values[0] for search in searches})
    for search in searches:
        line = [replace(best, **{search.name: value}) for value in search.values]
        if waiting := next((settings for settings in line if settings not in found), None):
            return waiting
        line = [settings for settings in found if replace(settings, **_setting(best, search)) == best]
        best = min(line, key=lambda settings: found[settings])
        if waiting := _beyond(best, line, search):
            return waiting
    return None


def _setting(settings: Settings, search: Search) -> dict[str, float]:
    return {search.name: getattr(settings, search.name)}


def _beyond(best: Settings, line: Sequence[Settings], search: Search) -> Settings | None:
    """The settings to try when the best ones of a line are at its end."""
    value, values = getattr(best, search.name), [getattr(settings, search.name) for settings in line]
    for step, end in ((search.above, max(values)), (search.below, min(values))):
        if step and value == end:
            return replace(best, **{search.name: step(value)})
    return None
