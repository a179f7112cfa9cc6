"""Perplexity of RevGRU and RevLSTM against GRU and LSTM with as many parameters, and what they archive."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.reversible.corpora import CORPORA, Corpus
from benchmarks.reversible.language import (
    LanguageModel,
    baseline,
    parameter_count,
    reversible,
    set_dropout,
    shift_forget_bias,
)
from executor.reversible import Reversible

LIMITS = (2, 3, 5)
ARCHIVE_STEPS = 1000
"""Most steps of the sequence on which the trained models' archives are weighed."""


@dataclass(frozen=True)
class Training:
    """What all models have in common."""

    text: str = "words"
    """What a token is: `words` or `characters`."""
    hidden_size: int = 128
    """Of the GRU and the LSTM; the reversible models get the size with as many parameters."""
    batch_size: int = 32
    length: int = 35
    """Steps of a window. Every window starts from the zero state: a RevLSTM that carried its state over
    lets h grow without bound, since its forget gates can reach 1."""
    iterations: int = 450
    warmup: float = 0.05
    """Share of the iterations in which the learning rate rises; it falls to zero in the others."""
    clip_norm: float = 1.0

    def rate(self, iteration: int) -> float:
        """Of the learning rate, in this iteration."""
        risen = (iteration + 1) / (self.warmup * self.iterations)
        return min(1.0, risen) * (1 - iteration / self.iterations)


CHARACTERS = Training(text="characters", hidden_size=96, length=50, iterations=600)
TRAININGS = {
    ("words", "gru"): Training(),
    ("words", "lstm"): Training(),
    ("characters", "gru"): CHARACTERS,
    ("characters", "lstm"): replace(CHARACTERS, iterations=400),
}
"""By text and kind. Six epochs of words; of characters 2.6, and what an LSTM costs more is taken from its."""


@dataclass(frozen=True)
class Settings:
    """What is chosen for each model, on the validation text: see `tuning`."""

    learning_rate: float
    forget_bias: float = 0.0
    """Added to the initial bias of the forget gates."""
    dropout: float = 0.0
    """Of the layers' inputs and outputs."""


def names(kind: str, limits: Sequence[int] = LIMITS) -> list[str]:
    """Of the reversible models of one kind."""
    return [f"rev{kind} n={limit}" for limit in limits]


def models(kind: str, training: Training, vocabulary_size: int) -> dict[str, Callable[[], LanguageModel]]:
    """Every model of one kind, `gru` or `lstm`, by name."""
    made: dict[str, Callable[[], LanguageModel]] = {
        kind: lambda: baseline(kind, training.hidden_size, vocabulary_size)
    }
    count = parameter_count(made[kind]())
    for name, limit in zip(names(kind), LIMITS, strict=True):
        made[name] = lambda limit=limit: reversible(
            kind, limit, parameters=count, vocabulary_size=vocabulary_size
        )
    return made


def rows(
    kind: str, training: Training, seeds: int, settings: Mapping[str, Settings], done: set[tuple[str, int]]
) -> Iterator[dict[str, Any]]:
    """Train every model with every seed that is not `done`; seeds outermost."""
    corpus = CORPORA[training.text](training.batch_size)
    makers = models(kind, training, corpus.vocabulary_size)
    for seed in range(seeds):
        for name, make in makers.items():
            if (name, seed) not in done:
                torch.manual_seed(seed)
                model, chosen = make(), settings[name]
                seconds = train(model, corpus, training, chosen)
                nats = nats_per_token(model, corpus.test, training.length)
                yield {
                    "model": name,
                    "seed": seed,
                    "iterations": training.iterations,
                    **asdict(chosen),
                    "parameters": parameter_count(model),
                    "validation_perplexity": perplexity(model, corpus.validation, training.length),
                    "nats_per_token": nats,
                    "perplexity": math.exp(nats),
                    "processor_seconds": seconds,
                    **archive(model, corpus),
                }


def train(model: LanguageModel, corpus: Corpus, training: Training, settings: Settings) -> float:
    """Train the model; the seconds of processor time that took."""
    start = time.process_time()
    shift_forget_bias(model.layers, settings.forget_bias)
    set_dropout(model, settings.dropout)
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
    windows = (len(corpus.train) - 1) // training.length
    for iteration in range(training.iterations):
        first = iteration % windows * training.length
        window = corpus.train[first : first + training.length + 1]
        total = model.loss(window)
        optimizer.zero_grad()
        (total / window[1:].numel()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
        optimizer.param_groups[0]["lr"] = settings.learning_rate * training.rate(iteration)
        optimizer.step()
    return time.process_time() - start


def nats_per_token(model: LanguageModel, streams: Tensor, length: int) -> float:
    """Mean loss per token of a text [steps, batch], in windows as those of the training."""
    model.eval()
    starts = range(0, len(streams) - length, length)
    windows = torch.cat([streams[start : start + length + 1] for start in starts], dim=1)
    with torch.no_grad():
        total = model.loss(windows)
    return float(total) / windows[1:].numel()


def perplexity(model: LanguageModel, streams: Tensor, length: int) -> float:
    """Per token: see `nats_per_token`."""
    return math.exp(nats_per_token(model, streams, length))


def archive(model: LanguageModel, corpus: Corpus) -> dict[str, Any]:
    """Bytes archived over a sequence against those of its hidden states (the paper's memory ratio)."""
    layers = model.layers
    if not isinstance(layers, Reversible):
        return {}
    window = corpus.test[: ARCHIVE_STEPS + 1]
    total = model.loss(window)
    parts = len(layers.state_names)
    numbers = (len(window) - 1) * window.shape[1] * layers.hidden_size * parts
    return {
        "hidden_size": layers.hidden_size,
        "archive_steps": len(window) - 1,
        "nats_per_token_there": float(total.detach()) / window[1:].numel(),
        "archived_bytes": layers.archived_bytes,
        "bits_per_unit_and_step": 8 * layers.archived_bytes / numbers,
        "hidden_states_ratio": 4 * numbers / layers.archived_bytes,
    }
