"""The language reference that CPython carries, as characters and as words.

In Python 3.11 it has 465,000 characters: prose, code and grammar.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from executor.jobs.data import load_text, vocabulary_of
from executor.jobs.job import DataSpec

SHARES = (0.8, 0.1, 0.1)
"""Of the text, in order: what models learn, what settings are chosen on, what models are compared on."""
LEAST_COUNT = 3
"""Words that are rarer in the part to learn share index 0."""
TOKEN = re.compile(r"\w+|\n+|([^\w\s])\1*")
"""A word, the end of lines, or a mark, repeated or not."""


@dataclass(frozen=True)
class Corpus:
    """Parallel streams of indices, int64 [steps, batch]."""

    train: Tensor
    validation: Tensor
    test: Tensor
    vocabulary_size: int

    @classmethod
    def of_characters(cls, batch_size: int) -> Corpus:
        """Character by character."""
        text = load_text(DataSpec())
        vocabulary = vocabulary_of(text)
        encoded = [vocabulary.encoded("".join(part)) for part in _parts(text)]
        return cls._of(encoded, batch_size, vocabulary.size)

    @classmethod
    def of_words(cls, batch_size: int) -> Corpus:
        """Word by word, in small letters."""
        parts = _parts(words(load_text(DataSpec())))
        index = word_indices(parts[0])
        encoded = [torch.tensor([index.get(word, 0) for word in part]) for part in parts]
        return cls._of(encoded, batch_size, len(index) + 1)

    @classmethod
    def _of(cls, encoded: Sequence[Tensor], batch_size: int, vocabulary_size: int) -> Corpus:
        train, validation, test = (_streams(part, batch_size) for part in encoded)
        return cls(train, validation, test, vocabulary_size)


CORPORA: dict[str, Callable[[int], Corpus]] = {
    "characters": Corpus.of_characters,
    "words": Corpus.of_words,
}


def words(text: str) -> list[str]:
    """Words in small letters, line ends and marks; a run of equal ones counts as one."""
    found = [match[0] for match in TOKEN.finditer(text.lower())]
    return [token if token[0].isalnum() or token[0] == "_" else token[0] for token in found]


def word_indices(learned: Sequence[str]) -> dict[str, int]:
    """Indices from 1 on of the words that occur LEAST_COUNT times, the most frequent first."""
    frequent = [word for word, count in Counter(learned).most_common() if count >= LEAST_COUNT]
    return {word: index for index, word in enumerate(frequent, start=1)}


def _parts(text: Sequence[str]) -> list[Sequence[str]]:
    ends = [round(len(text) * share) for share in accumulate(SHARES)]
    return [text[start:end] for start, end in pairwise([0, *ends])]


def _streams(indices: Tensor, batch_size: int) -> Tensor:
    steps = len(indices) // batch_size
    return indices[: steps * batch_size].view(batch_size, steps).t().contiguous()
