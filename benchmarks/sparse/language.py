"""A character language model over torch's or sparse layers, and the text that it learns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from executor.jobs.data import load_text, vocabulary_of
from executor.jobs.job import DataSpec

EMBEDDING_SIZE = 64
HELD_OUT = 0.1
"""Share of the text, its end, on which models are compared."""


@dataclass(frozen=True)
class Corpus:
    """Parallel streams of character indices, int64 [steps, batch]."""

    train: Tensor
    held_out: Tensor
    vocabulary_size: int

    @classmethod
    @cache
    def of_python(cls, batch_size: int) -> Corpus:
        """The language reference that CPython carries, 465,000 characters in Python 3.11."""
        text = load_text(DataSpec())
        vocabulary = vocabulary_of(text)
        indices = vocabulary.encoded(text)
        cut = int(len(indices) * (1 - HELD_OUT))
        return cls(_streams(indices[:cut], batch_size), _streams(indices[cut:], batch_size), vocabulary.size)

    def window(self, iteration: int, length: int) -> Tensor:
        """int64 [length + 1, batch]: windows follow each other along the text, again and again."""
        first = iteration % ((len(self.train) - 1) // length) * length
        return self.train[first : first + length + 1]

    def held_out_windows(self, length: int) -> Tensor:
        """All windows of the held-out text side by side, int64 [length + 1, windows]."""
        starts = range(0, len(self.held_out) - length, length)
        return torch.cat([self.held_out[start : start + length + 1] for start in starts], dim=1)


def _streams(indices: Tensor, batch_size: int) -> Tensor:
    steps = len(indices) // batch_size
    return indices[: steps * batch_size].view(batch_size, steps).t().contiguous()


class LanguageModel(nn.Module):
    """Embedding, recurrent layers, head; every window starts from the zero state."""

    def __init__(self, layers: nn.RNNBase, vocabulary_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, EMBEDDING_SIZE)
        self.layers = layers
        self.head = nn.Linear(layers.hidden_size, vocabulary_size)

    def loss(self, window: Tensor) -> Tensor:
        """Mean loss per character of a window [T + 1, B], in nats."""
        y, _ = self.layers(self.embedding(window[:-1]))
        return nn.functional.cross_entropy(self.head(y).flatten(0, 1), window[1:].flatten())
