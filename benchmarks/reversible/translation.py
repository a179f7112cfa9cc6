"""Translation with attention: BLEU of reversible encoders and decoders against GRU and LSTM ones.

All models have as many parameters, the same training and choice of learning rates. The reversible ones
attend to the source's embeddings and a slice of the encoder's states, the others to all of both.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from benchmarks.reversible.catalogues import Pair
from benchmarks.reversible.language import parameter_count
from benchmarks.reversible.subwords import PADDING
from benchmarks.reversible.translation_task import Task, batches
from benchmarks.reversible.translators import Model, models, translations

LEARNING_RATES = (0.005, 0.01)
SEEDS = 2
TUNING_SEED = 100
Row = dict[str, Any]


@dataclass(frozen=True)
class Training:
    """What all models have in common."""

    epochs: int = 8
    batch_size: int = 64
    dropout: float = 0.3
    clip_norm: float = 1.0


SHORT = replace(Training(), epochs=2)
"""For the choice of a learning rate."""


def tuning(done: Sequence[Row]) -> Iterator[Row]:
    """Validation perplexity of every model with every learning rate that is not `done`; short trainings."""
    task = Task.of_catalogues()
    seen = {(row["model"], row["learning_rate"]) for row in done}
    for name, make in models(task, dropout=SHORT.dropout).items():
        for rate in LEARNING_RATES:
            if (name, rate) not in seen:
                torch.manual_seed(TUNING_SEED)
                model = make()
                seconds = train(model, task, SHORT, learning_rate=rate)
                perplexity = math.exp(nats_per_token(model, task, task.texts.validation))
                yield {
                    "model": name,
                    "epochs": SHORT.epochs,
                    "learning_rate": rate,
                    "validation_perplexity": perplexity,
                    "processor_seconds": seconds,
                }


def rows(tuned: Sequence[Row], done: Sequence[Row]) -> Iterator[Row]:
    """Perplexity and BLEU on the test texts, of every model and seed that is not `done`."""
    import sacrebleu

    task, training = Task.of_catalogues(), Training()
    seen = {(row["model"], row["seed"]) for row in done}
    references = [french for _, french in task.texts.test]
    for seed in range(SEEDS):
        for name, make in models(task, dropout=training.dropout).items():
            if (name, seed) in seen:
                continue
            torch.manual_seed(seed)
            model = make()
            best = min((row for row in tuned if row["model"] == name), key=_perplexity)
            seconds = train(model, task, training, learning_rate=best["learning_rate"])
            found = translations(model, task, task.texts.test)
            bleu = sacrebleu.BLEU()
            yield {
                "model": name,
                "seed": seed,
                "parameters": parameter_count(model),
                "hidden_size": model.encoder.hidden_size,
                "kept_units": model.head.kept_units,
                "epochs": training.epochs,
                "learning_rate": best["learning_rate"],
                "perplexity": math.exp(nats_per_token(model, task, task.texts.test)),
                "bleu": bleu.corpus_score(found, [references]).score,
                "signature": str(bleu.get_signature()),
                "train_pairs": len(task.texts.train),
                "test_pairs": len(references),
                "processor_seconds": seconds,
            }


def _perplexity(row: Row) -> float:
    found: float = row["validation_perplexity"]
    return found


def train(model: Model, task: Task, training: Training, *, learning_rate: float) -> float:
    """Train the model, the learning rate falling to zero; the seconds of processor time that took."""
    start = time.process_time()
    data = task.encoded(task.texts.train)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    order = random.Random(0)
    steps = training.epochs * len(batches(data, training.batch_size, random.Random(0)))
    step = 0
    model.train()
    for _ in range(training.epochs):
        for source, target in batches(data, training.batch_size, order):
            optimizer.param_groups[0]["lr"] = learning_rate * (1 - step / steps)
            optimizer.zero_grad()
            (model.loss(source, target) / (target[1:] != PADDING).sum()).backward()
            nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
            optimizer.step()
            step += 1
    return time.process_time() - start


@torch.no_grad()
def nats_per_token(model: Model, task: Task, pairs: Sequence[Pair]) -> float:
    """Mean loss per French token."""
    model.eval()
    total, count = 0.0, 0
    for source, target in batches(task.encoded(pairs), 64, random.Random(0)):
        total += float(model.loss(source, target))
        count += int((target[1:] != PADDING).sum())
    return total / count
