"""Byte-pair encoding: frequent pieces of words as tokens, learned from a text.

Source: Sennrich, Haddow, Birch (2016), arXiv:1508.07909. A word begins with a mark, so that the pieces put
one after another give the text again.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

PADDING, BOUNDARY, UNKNOWN = 0, 1, 2
"""No token; the start and the end of a sentence; a character that the learning text lacks."""
_SPECIAL = 3
_MARK = "\u2581"
Piece = tuple[str, str]


@dataclass(frozen=True)
class Subwords:
    """Pieces with indices; those made by merging two others come after the characters, in merging order."""

    pieces: tuple[str, ...]
    merges: tuple[Piece, ...]

    @classmethod
    def learn(cls, texts: Iterable[str], merge_count: int) -> Subwords:
        """The characters of the texts, and `merge_count` merges of the most frequent neighbours."""
        counts = Counter(word for text in texts for word in _words(text))
        words = {word: list(word) for word in counts}
        characters = sorted({character for word in words for character in word})
        merges: list[Piece] = []
        neighbours = _Neighbours(words, counts)
        while len(merges) < merge_count and (best := neighbours.most_frequent()) is not None:
            merges.append(best)
            neighbours.merge(best)
        return cls((*characters, *(first + second for first, second in merges)), tuple(merges))

    @property
    def size(self) -> int:
        """Number of indices."""
        return _SPECIAL + len(self.pieces)

    def encode(self, text: str) -> list[int]:
        """Indices of the pieces of a text, without boundaries."""
        index = {piece: position for position, piece in enumerate(self.pieces, _SPECIAL)}
        return [index.get(piece, UNKNOWN) for word in _words(text) for piece in self._split(word)]

    def decode(self, indices: Sequence[int]) -> str:
        """The text of indices; unknown characters are left out."""
        pieces = [self.pieces[index - _SPECIAL] for index in indices if index >= _SPECIAL]
        return "".join(pieces).replace(_MARK, " ").strip()

    @lru_cache(maxsize=100_000)  # noqa: B019 - lives as long as the benchmark
    def _split(self, word: str) -> tuple[str, ...]:
        rank = {pair: position for position, pair in enumerate(self.merges)}
        pieces = list(word)
        while True:
            pair = min(pairwise(pieces), key=lambda pair: rank.get(pair, len(rank)), default=None)
            if pair not in rank:
                return tuple(pieces)
            pieces = _merged(pieces, pair)


class _Neighbours:
    """How often which pieces follow each other in the words, kept up to date while they merge."""

    def __init__(self, words: dict[str, list[str]], counts: Counter[str]) -> None:
        self._words, self._counts = words, counts
        self._frequency: Counter[Piece] = Counter()
        self._where: dict[Piece, set[str]] = defaultdict(set)
        for word in words:
            self._count(word, 1)

    def most_frequent(self) -> Piece | None:
        """The most frequent pair, the first in code point order among equals; None when there is none."""
        best = min(self._frequency, key=lambda pair: (-self._frequency[pair], pair), default=None)
        return best if best is not None and self._frequency[best] > 1 else None

    def merge(self, pair: Piece) -> None:
        """Make one piece of the pair wherever it occurs."""
        for word in sorted(self._where.pop(pair)):
            self._count(word, -1)
            self._words[word] = _merged(self._words[word], pair)
            self._count(word, 1)
        del self._frequency[pair]

    def _count(self, word: str, sign: int) -> None:
        for pair in pairwise(self._words[word]):
            self._frequency[pair] += sign * self._counts[word]
            self._where[pair].add(word)


def _words(text: str) -> list[str]:
    return [_MARK + word for word in text.split()]


def _merged(pieces: Sequence[str], pair: Piece) -> list[str]:
    """The pieces with each occurrence of the pair as one."""
    merged: list[str] = []
    for piece in pieces:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged
