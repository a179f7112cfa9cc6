"""The models of `translation`, reversible and not, and how they translate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.reversible.catalogues import Pair
from benchmarks.reversible.language import parameter_count
from benchmarks.reversible.subwords import BOUNDARY
from benchmarks.reversible.translation_task import Task, padded
from executor.reversible import RevGRU, RevLSTM
from executor.reversible.attention import AttentionHead, Translator

EMBEDDING_SIZE, HIDDEN_SIZE, KEPT_UNITS = 64, 128, 8
LONGEST = 60
"""Tokens of a translation at most."""


class PlainTranslator(nn.Module):
    """The same model around torch.nn.GRU or torch.nn.LSTM; attention to all units of the encoder."""

    def __init__(
        self,
        layers: type[nn.GRU] | type[nn.LSTM],
        *,
        source_size: int,
        target_size: int,
        embedding_size: int,
        hidden_size: int,
        dropout: float,
    ) -> None:
        super().__init__()
        source, target = nn.Embedding(source_size, embedding_size), nn.Embedding(target_size, embedding_size)
        self.read = nn.Sequential(source, nn.Dropout(dropout))
        self.encoder = layers(embedding_size, hidden_size)
        self.recall = nn.Sequential(target, nn.Dropout(dropout))
        self.decoder = layers(embedding_size, hidden_size)
        self.head = AttentionHead(
            source, hidden_size=hidden_size, kept_units=hidden_size, target_size=target_size, dropout=dropout
        )

    def loss(self, source: Tensor, target: Tensor) -> Tensor:
        """See Translator."""
        kept, state = self.encode(source)
        y, _ = self.decoder(self.recall(target[:-1]), state)
        loss: Tensor = self.head(y, target[1:], kept, source)
        return loss

    def encode(self, source: Tensor) -> tuple[Tensor, Any]:
        """See Translator."""
        kept, state = self.encoder(self.read(source))
        return kept, state

    def step(self, previous: Tensor, state: Any, kept: Tensor, source: Tensor) -> tuple[Tensor, Any]:
        """See Translator."""
        y, state = self.decoder(self.recall(previous.unsqueeze(0)), state)
        return self.head.scores(y, kept, source).squeeze(0), state


Model = Translator | PlainTranslator


def models(task: Task, *, dropout: float) -> dict[str, Callable[[], Model]]:
    """Every model by name; the GRU's and the LSTM's parameters are those of their reversible counterparts."""
    sizes = {"source_size": task.source.size, "target_size": task.target.size}
    common = {**sizes, "embedding_size": EMBEDDING_SIZE, "dropout": dropout}
    made: dict[str, Callable[[], Model]] = {}
    for plain, kind in ((nn.GRU, RevGRU), (nn.LSTM, RevLSTM)):
        made[plain.__name__.lower()] = lambda plain=plain: PlainTranslator(
            plain, hidden_size=HIDDEN_SIZE, **common
        )

        def reversible(hidden_size: int, kind: Any = kind) -> Translator:
            return Translator(kind, hidden_size=hidden_size, kept_units=KEPT_UNITS, forget_bits=3, **common)

        size = _nearest_size(made[plain.__name__.lower()], reversible)
        made[f"{kind.__name__.lower()} n=3"] = lambda size=size, make=reversible: make(size)
    return made


def _nearest_size(plain: Callable[[], Model], make: Callable[[int], Model]) -> int:
    """The even hidden size with which `make` has as nearly as can be the parameters of `plain`."""
    with torch.device("meta"):
        count = parameter_count(plain())
        return min(range(32, 512, 2), key=lambda size: abs(parameter_count(make(size)) - count))


@torch.no_grad()
def translations(model: Model, task: Task, pairs: Sequence[Pair]) -> list[str]:
    """The greedy translations of the English texts, in order."""
    model.eval()
    found: list[str] = []
    sources = [source for source, _ in task.encoded(pairs)]
    for start in range(0, len(sources), 64):
        source = padded(sources[start : start + 64], front=1)
        found += [task.target.decode(_until_boundary(tokens)) for tokens in _greedy(model, source)]
    return found


def _greedy(model: Model, source: Tensor) -> list[list[int]]:
    kept, state = model.encode(source)
    token = torch.full((source.shape[1],), BOUNDARY)
    ended = torch.zeros_like(token, dtype=torch.bool)
    steps: list[Tensor] = []
    while len(steps) < LONGEST and not ended.all():
        logits, state = model.step(token, state, kept, source)
        token = logits.argmax(dim=1)
        ended |= token == BOUNDARY
        steps.append(token)
    return torch.stack(steps, dim=1).tolist()


def _until_boundary(tokens: list[int]) -> list[int]:
    return tokens[: tokens.index(BOUNDARY)] if BOUNDARY in tokens else tokens
