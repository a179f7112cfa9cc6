"""Text as character streams."""

import pytest
import torch

from executor.jobs.data import VOCABULARY_LIMIT, character_streams, load_text, vocabulary_of
from executor.jobs.job import DataSpec, InvalidJob, SequenceSpec


def test_python_carries_enough_text_for_the_demo():
    """The built-in text feeds 32 streams of more than ten windows of 1,000 steps"""
    streams = character_streams(DataSpec(), SequenceSpec(length=1_000, batch_size=32))
    assert streams.window_count > 10


def test_streams_read_the_text_in_order(tmp_path):
    """Column b of the windows, joined, is the b-th stretch of the text"""
    text = "the quick brown fox jumps over the lazy dog. " * 3
    (tmp_path / "text").write_text(text)
    streams = character_streams(DataSpec(text=str(tmp_path / "text")), SequenceSpec(length=10, batch_size=2))
    steps = len(text) // 2
    expected = streams.vocabulary.encoded(text[steps : steps + 11])
    assert torch.equal(expected, streams.window(0)[:, 1])
    assert torch.equal(streams.window(0)[-1], streams.window(1)[0])


def test_training_never_sees_the_evaluation_window(tmp_path):
    """Windows start again after the last one for training"""
    (tmp_path / "text").write_text("abcdefgh" * 10)
    streams = character_streams(DataSpec(text=str(tmp_path / "text")), SequenceSpec(length=7, batch_size=2))
    seen = {streams.window(iteration).data_ptr() for iteration in range(50)}
    assert streams.evaluation_window().data_ptr() not in seen
    assert len(seen) == streams.window_count - 1


def test_rare_characters_share_index_zero():
    """The vocabulary is limited, the rest is encoded as 0"""
    text = "a" * 5 + "".join(chr(0x4E00 + index) for index in range(200))
    vocabulary = vocabulary_of(text)
    assert vocabulary.size == VOCABULARY_LIMIT + 1
    assert vocabulary.encoded("a\U0001f600").tolist() == [1, 0]


def test_a_text_shorter_than_one_window_is_refused(tmp_path):
    """The error says how many characters there are and how many are needed"""
    (tmp_path / "text").write_text("short")
    with pytest.raises(InvalidJob, match=r"5 characters are too few .* 22 are needed"):
        character_streams(DataSpec(text=str(tmp_path / "text")), SequenceSpec(length=10, batch_size=2))


@pytest.mark.parametrize(("name", "content"), [("absent", None), ("binary", b"\xff\xfe\x00")])
def test_a_text_that_cannot_be_read_is_refused(tmp_path, name, content):
    """The error names data.text and the file"""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidJob, match=f"data.text: .*{name}"):
        load_text(DataSpec(text=str(tmp_path / name)))
