"""The parallel corpus and the subwords of the translation benchmark."""

from __future__ import annotations

import struct
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.reversible.catalogues import Parallel, catalogue_pairs
from benchmarks.reversible.subwords import BOUNDARY, UNKNOWN, Subwords

LEARNING_TEXTS = ["low low low low low", "lower lower", "newest newest newest newest newest newest", "widest"]


def compiled(messages):
    """A gettext catalogue as msgfmt compiles it; the header goes first, being the translation of nothing."""
    messages = {"": "Content-Type: text/plain; charset=UTF-8\n", **messages}
    pairs = [(key.encode(), text.encode()) for key, text in sorted(messages.items())]
    tables, position = ([], []), 28 + 16 * len(pairs)
    data = b""
    for column in (0, 1):
        for pair in pairs:
            tables[column].append(struct.pack("<II", len(pair[column]), position + len(data)))
            data += pair[column] + b"\0"
    count = len(pairs)
    head = struct.pack("<7I", 0x950412DE, 0, count, 28, 28 + 8 * count, 0, 0)
    return head + b"".join(tables[0] + tables[1]) + data


@pytest.fixture
def catalogue(tmp_path):
    folder = tmp_path / "software" / "locale" / "fr" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    path = folder / "software.mo"
    messages = {
        "Open the file": "Ouvrir\nle fichier",
        "menu\x04Save all files": "Tout enregistrer",
        "<b>Two words</b>": "<b>Deux mots</b>",
        "Word": "Mot",
        "Not translated": "Not translated",
        "one file\0many files": "un fichier\0des fichiers",
    }
    path.write_bytes(compiled(messages))
    return path


def test_a_catalogue_gives_translated_texts_of_some_words(catalogue):
    """No markup, single words, untranslated texts or plurals; contexts and line breaks are taken away."""
    expected = {"Open the file": "Ouvrir le fichier", "Save all files": "Tout enregistrer"}
    assert dict(catalogue_pairs(catalogue)) == expected


def test_texts_that_differ_in_punctuation_alone_stay_together(catalogue):
    texts = {
        f"Open {mark} file number {n}{mark}": f"Fichier {n}" for n in range(60) for mark in ("", "!", "…")
    }
    catalogue.write_bytes(compiled(texts))
    parallel = Parallel.of_catalogues(catalogue.parents[4])
    parts = [parallel.train, parallel.validation, parallel.test]
    numbers = [{french for _, french in part} for part in parts]
    assert sum(map(len, parts)) == len(texts)
    assert all(numbers)
    assert sum(map(len, numbers)) == 60


def test_a_missing_corpus_says_how_to_get_it(tmp_path):
    with pytest.raises(SystemExit, match=r"pip install --no-deps --target build/corpus"):
        Parallel.of_catalogues(tmp_path)


def test_the_most_frequent_neighbours_merge_first():
    """By hand: "we" occurs eight times; "lo" and "es" seven, and code points decide among equals."""
    assert Subwords.learn(LEARNING_TEXTS, 2).merges == (("w", "e"), ("l", "o"))


def test_merges_are_those_of_counting_anew_each_time():
    """The counts that are kept up to date give the merges of the naive algorithm."""
    words = Counter(f"\u2581{word}" for text in LEARNING_TEXTS for word in text.split())
    split = {word: list(word) for word in words}
    expected = []
    for _ in range(8):
        counts = Counter()
        for word, pieces in split.items():
            for pair in pairwise(pieces):
                counts[pair] += words[word]
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        expected.append(best)
        for pieces in split.values():
            for i in range(len(pieces) - 1, 0, -1):
                if tuple(pieces[i - 1 : i + 1]) == best:
                    pieces[i - 1 : i + 1] = ["".join(best)]
    assert Subwords.learn(LEARNING_TEXTS, 8).merges == tuple(expected)


@given(st.lists(st.text("lowernstid", min_size=1), min_size=1).map(" ".join))
@settings(max_examples=50, deadline=None)
def test_indices_give_the_text_again(text):
    learned = Subwords.learn(LEARNING_TEXTS, 10)
    indices = learned.encode(text)
    assert UNKNOWN not in indices
    assert learned.decode([BOUNDARY, *indices]) == text
    assert max(indices) < learned.size


def test_a_character_that_was_never_seen_is_unknown():
    learned = Subwords.learn(LEARNING_TEXTS, 0)
    assert UNKNOWN in learned.encode("low x")
    assert learned.decode(learned.encode("low xe")) == "low e"
