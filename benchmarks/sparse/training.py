"""One training run, dense or sparse, and what it has to show: loss, sparsity, processor time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.sparse.language import EMBEDDING_SIZE, Corpus, LanguageModel
from executor.sparse import EverythingDropped, IterationRecord, Schedule, SparseLSTM, rule_named

COSINE_EVERY = 25
"""Iterations between two comparisons with the dense gradient."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """What the runs of one table have in common."""

    hidden_size: int = 96
    num_layers: int = 1
    length: int = 50
    batch_size: int = 32
    iterations: int = 250
    learning_rate: float = 2e-3
    clip_norm: float = 1.0


@dataclass(frozen=True)
class Variant:
    """A rule by name with its settings; no rule is torch.nn.LSTM."""

    rule: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    schedule: Schedule | None = None
    error_feedback: bool = False

    def __str__(self) -> str:
        parts = [self.rule or "dense", *(f"{name}={value:g}" for name, value in self.settings.items())]
        if self.schedule is not None:
            parts.append(
                f"warm-up {self.schedule.warm_up_iterations}, dense every {self.schedule.dense_every}"
            )
        return " ".join([*parts, "error feedback"] if self.error_feedback else parts)

    def layers(self, module: nn.LSTM, seed: int) -> nn.LSTM:
        """`module` itself, or sparse layers with its weights."""
        if self.rule is None:
            return module
        rule = rule_named(self.rule, **self.settings)
        return SparseLSTM.from_torch(
            module, rule=rule, schedule=self.schedule, error_feedback=self.error_feedback, seed=seed
        )


DENSE = Variant()


def trained(variant: Variant, training: Training, seed: int) -> dict[str, Any]:
    """Train from the weights of `seed`; the held-out loss and the means of what was counted."""
    torch.manual_seed(seed)
    corpus = Corpus.of_python(training.batch_size)
    module = nn.LSTM(EMBEDDING_SIZE, training.hidden_size, training.num_layers)
    model = LanguageModel(variant.layers(module, seed), corpus.vocabulary_size)
    begin = time.process_time()
    try:
        records, cosines = _iterate(model, corpus, training)
    except EverythingDropped as refusal:
        return {"refused": str(refusal)}
    seconds = time.process_time() - begin
    return {
        "nats_per_character": held_out_nats(model, corpus, training.length),
        "processor_seconds": seconds,
        **counted(records),
        **({"cosine": mean(cosines), "least_cosine": min(cosines)} if cosines else {}),
    }


def _iterate(
    model: LanguageModel, corpus: Corpus, training: Training
) -> tuple[list[IterationRecord], list[float]]:
    optimizer = torch.optim.Adam(model.parameters(), lr=training.learning_rate)
    records: list[IterationRecord] = []
    cosines: list[float] = []
    for iteration in range(training.iterations):
        window = corpus.window(iteration, training.length)
        optimizer.zero_grad()
        loss = model.loss(window)
        if isinstance(model.layers, SparseLSTM) and iteration % COSINE_EVERY == 0:
            dense = dense_gradient(model, model.layers, loss)
            loss.backward()
            cosines.append(cosine(dense, [parameter.grad for parameter in model.layers.parameters()]))
        else:
            loss.backward()
        if isinstance(model.layers, SparseLSTM) and (record := model.layers.end_iteration()):
            records.append(record)
        torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
        optimizer.step()
    return records, cosines


def dense_gradient(model: LanguageModel, layers: SparseLSTM, loss: Tensor) -> list[Tensor]:
    """The gradients of full BPTT of the same loss, for the parameters of `layers`."""
    with layers.sparsifier.paused():
        return list(torch.autograd.grad(loss, list(layers.parameters()), retain_graph=True))


def cosine(one: list[Tensor], other: list[Tensor]) -> float:
    """Between two lists of gradients, each taken as one vector."""
    first, second = (torch.cat([part.flatten() for part in parts]) for parts in (one, other))
    return float(nn.functional.cosine_similarity(first, second, dim=0))


def counted(records: list[IterationRecord]) -> dict[str, Any]:
    """Means over all iterations, and the sparsity of the first and last twentieth of them."""
    if not records:
        return {}
    part = max(1, len(records) // 20)
    gates = records[0].gate_sparsity
    return {
        "sparsity": mean(record.sparsity for record in records),
        "sparsity_first": mean(record.sparsity for record in records[:part]),
        "sparsity_last": mean(record.sparsity for record in records[-part:]),
        "gate_sparsity": {gate: mean(record.gate_sparsity[gate] for record in records) for gate in gates},
        "redundant_ratio_by_formula": mean(record.redundant_ratio_by_formula for record in records),
        "redundant_ratio": mean(record.redundant_ratio for record in records),
        "saved_ratio": mean(record.saved_ratio for record in records),
    }


def held_out_nats(model: LanguageModel, corpus: Corpus, length: int) -> float:
    """Mean loss per character of the held-out text, in windows as those of the training."""
    model.eval()
    with torch.no_grad():
        return float(model.loss(corpus.held_out_windows(length)))
