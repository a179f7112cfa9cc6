"""A parallel corpus: English texts of software and their French translations, from gettext catalogues."""

from __future__ import annotations

import gettext
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path("build/corpus")
INSTALL = f"pip install --no-deps --target {FOLDER} -r benchmarks/reversible/corpus.txt"
LANGUAGES = ("fr", "fr_FR")
WORDS = range(2, 21)
"""Words of an English text and of a French one."""
FOLDS = 10
"""One of ten texts is for the choice of settings, another one of ten for the comparison."""
Pair = tuple[str, str]


@dataclass(frozen=True)
class Parallel:
    """Pairs of texts, English and French; no English text is in two parts, nor with other punctuation."""

    train: list[Pair]
    validation: list[Pair]
    test: list[Pair]

    @classmethod
    def of_catalogues(cls, folder: Path = FOLDER) -> Parallel:
        """All texts of the catalogues below `folder`, each once. Raises SystemExit when there are none."""
        found: dict[str, str] = {}
        for path in sorted(folder.glob("**/LC_MESSAGES/*.mo")):
            if path.parent.parent.name in LANGUAGES:
                for english, french in catalogue_pairs(path):
                    found.setdefault(english, french)
        if not found:
            raise SystemExit(f"no catalogues below {folder}: get them by\n  {INSTALL}")
        folds: list[list[Pair]] = [[] for _ in range(FOLDS)]
        for english, french in found.items():
            folds[_fold(english)].append((english, french))
        return cls([pair for fold in folds[2:] for pair in fold], folds[1], folds[0])


class _Catalogue(gettext.GNUTranslations):
    def items(self) -> Iterator[Pair]:
        """Texts and translations; those that depend on a number are left out."""
        for key, text in self._catalog.items():
            if isinstance(key, str) and key:
                yield key.rpartition("\x04")[2], text


def catalogue_pairs(path: Path) -> Iterator[Pair]:
    """The pairs of a compiled catalogue that are of some words, without markup, and translated."""
    with path.open("rb") as file:
        for pair in _Catalogue(file).items():
            english, french = (" ".join(text.split()) for text in pair)
            lengths = {len(english.split()), len(french.split())}
            if english != french and "<" not in english and all(length in WORDS for length in lengths):
                yield english, french


def _fold(english: str) -> int:
    words = re.sub(r"\W+", " ", english.lower()).strip()
    return zlib.crc32(words.encode()) % FOLDS
