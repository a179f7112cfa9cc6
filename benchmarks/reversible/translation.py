"""Translation with attention: BLEU of reversible encoders and decoders against GRU and LSTM ones.

All models have as many parameters and the same training, not tuned for any of them. The reversible ones
attend to the source's embeddings and a slice of the encoder's states, the others to all of both.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from benchmarks.reversible.catalogues import Pair
from benchmarks.reversible.language import parameter_count
from benchmarks.reversible.subwords import PADDING
from benchmarks.reversible.translation_task import Task, batches
from benchmarks.reversible.translators import Model, models, translations

SEEDS = 3
Row = dict[str, Any]


@dataclass(frozen=True)
class Training:
    """What all models have in common."""

    epochs: int = 8
    learning_rate: float = 5e-3
    """At the start; it falls to zero."""
    batch_size: int = 16
    dropout: float = 0.2
    clip_norm: float = 1.0


def rows(done: Sequence[Row]) -> Iterator[Row]:
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
            seconds = train(model, task, training)
            found = translations(model, task, task.texts.test)
            bleu = sacrebleu.BLEU()
            yield {
                "model": name,
                "seed": seed,
                "parameters": parameter_count(model),
                "hidden_size": model.encoder.hidden_size,
                "kept_units": model.head.kept_units,
                "epochs": training.epochs,
                "learning_rate": training.learning_rate,
                "perplexity": math.exp(nats_per_token(model, task, task.texts.test)),
                "bleu": bleu.corpus_score(found, [references]).score,
                "signature": str(bleu.get_signature()),
                "train_pairs": len(task.texts.train),
                "test_pairs": len(references),
                "processor_seconds": seconds,
            }


def train(model: Model, task: Task, training: Training) -> float:
    """Train the model; the seconds of processor time that took."""
    start = time.process_time()
    data = task.encoded(task.texts.train)
    optimizer = torch.optim.Adam(model.parameters(), lr=training.learning_rate)
    order = random.Random(0)
    steps = training.epochs * len(batches(data, training.batch_size, random.Random(0)))
    step = 0
    model.train()
    for _ in range(training.epochs):
        for source, target in batches(data, training.batch_size, order):
            optimizer.param_groups[0]["lr"] = training.learning_rate * (1 - step / steps)
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
