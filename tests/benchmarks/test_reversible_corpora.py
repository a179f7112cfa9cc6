"""The texts on which reversible layers are compared with others."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch

from benchmarks.reversible.corpora import CORPORA, LEAST_COUNT, SHARES, word_indices, words
from executor.jobs.data import load_text
from executor.jobs.job import DataSpec


def test_words_are_in_small_letters_and_runs_of_marks_and_lines_count_once():
    text = "The __init__ of x2\n=====\n\n(a -- b)"
    assert words(text) == ["the", "__init__", "of", "x2", "\n", "=", "\n", "(", "a", "-", "b", ")"]


def test_rare_words_have_no_index_of_their_own_and_frequent_ones_come_first():
    learned = ["b"] * LEAST_COUNT + ["a"] * (LEAST_COUNT + 1) + ["rare"] * (LEAST_COUNT - 1)
    assert word_indices(learned) == {"a": 1, "b": 2}


def test_the_vocabulary_is_learned_from_the_first_part_alone():
    """Every index occurs often enough there, and the shared index 0 in all parts."""
    corpus = CORPORA["words"](1)
    counts = torch.bincount(corpus.train.flatten(), minlength=corpus.vocabulary_size)
    assert len(counts) == corpus.vocabulary_size
    assert counts[1:].min() >= LEAST_COUNT
    assert all((part == 0).any() for part in (corpus.train, corpus.validation, corpus.test))


@pytest.mark.parametrize(("text", "split"), [("characters", list), ("words", words)])
def test_streams_follow_the_text_part_after_part(text, split):
    """One stream a part: tokens in order, none twice, none left out."""
    corpus, tokens = CORPORA[text](1), split(load_text(DataSpec()))
    parts = [part[:, 0] for part in (corpus.train, corpus.validation, corpus.test)]
    together = torch.cat(parts).tolist()
    assert len(together) == len(tokens)
    assert [len(part) for part in parts] == pytest.approx([share * len(tokens) for share in SHARES], abs=1)
    meanings = {}
    for index, token in zip(together, tokens, strict=True):
        assert not index or meanings.setdefault(index, token) == token


def test_streams_side_by_side_are_the_text_cut_in_equal_pieces():
    one, four = (CORPORA["words"](streams).test for streams in (1, 4))
    assert torch.equal(four.t().flatten(), one[: four.numel(), 0])
