"""English to French as indices: subwords of both languages, and batches of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.reversible.catalogues import Pair, Parallel
from benchmarks.reversible.subwords import BOUNDARY, PADDING, Subwords

MERGES = 1000
Indices = tuple[list[int], list[int]]


@dataclass(frozen=True)
class Task:
    """A parallel corpus as indices: pairs of lists, each with BOUNDARY at its end, French also in front."""

    texts: Parallel
    source: Subwords
    target: Subwords

    @classmethod
    def of_catalogues(cls) -> Task:
        """English to French."""
        texts = Parallel.of_catalogues()
        english, french = zip(*texts.train, strict=True)
        return cls(texts, Subwords.learn(english, MERGES), Subwords.learn(french, MERGES))

    def encoded(self, pairs: Sequence[Pair]) -> list[Indices]:
        """Indices of both sides."""
        return [
            (
                [*self.source.encode(english), BOUNDARY],
                [BOUNDARY, *self.target.encode(french), BOUNDARY],
            )
            for english, french in pairs
        ]


def batches(data: Sequence[Indices], size: int, order: random.Random) -> list[tuple[Tensor, Tensor]]:
    """Batches of sentences of similar length, in random order; sources padded in front, targets behind."""
    shuffled = sorted(order.sample(data, len(data)), key=lambda pair: (len(pair[0]), len(pair[1])))
    parts = [shuffled[start : start + size] for start in range(0, len(shuffled), size)]
    order.shuffle(parts)
    return [(padded([s for s, _ in part], front=1), padded([t for _, t in part], front=0)) for part in parts]


def padded(sequences: Sequence[list[int]], *, front: int) -> Tensor:
    """[longest, batch]; the padding is in `front` (1) or behind (0)."""
    longest = max(map(len, sequences))
    columns = []
    for sequence in sequences:
        missing = [PADDING] * (longest - len(sequence))
        columns.append([*missing, *sequence] if front else [*sequence, *missing])
    return torch.tensor(columns).t().contiguous()
