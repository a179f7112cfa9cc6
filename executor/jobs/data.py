"""Real text as character streams: [steps, batch] windows for a model that predicts the next character.

The built-in text is the language reference that CPython carries as `pydoc_data.topics` (PSF licence):
prose and code, 465,000 characters in Python 3.11, on every machine with CPython and its standard library.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from executor.jobs.job import PYTHON_TEXT, DataSpec, InvalidJob, SequenceSpec

VOCABULARY_LIMIT = 127
"""Most characters with an index of their own; the rarer ones share index 0."""


@dataclass(frozen=True)
class Vocabulary:
    """Characters with an index from 1 on, most frequent first; 0 stands for every other character."""

    characters: str

    @property
    def size(self) -> int:
        """Number of indices, the shared one included."""
        return len(self.characters) + 1

    def encoded(self, text: str) -> Tensor:
        """The indices of the text's characters, int64 [len(text)]."""
        index = {character: position for position, character in enumerate(self.characters, start=1)}
        return torch.tensor([index.get(character, 0) for character in text], dtype=torch.int64, device="cpu")


def vocabulary_of(text: str) -> Vocabulary:
    """The vocabulary of a text; equally frequent characters in code point order."""
    counts = Counter(text)
    ordered = sorted(counts, key=lambda character: (-counts[character], character))
    return Vocabulary("".join(ordered[:VOCABULARY_LIMIT]))


@dataclass(frozen=True)
class CharacterStreams:
    """A text cut into `batch_size` parallel streams, read window by window."""

    indices: Tensor
    """int64 [stream_steps, batch]."""
    length: int
    """T, the steps of one window."""
    vocabulary: Vocabulary

    def to(self, device: torch.device) -> CharacterStreams:
        """The same streams on `device`."""
        return replace(self, indices=self.indices.to(device))

    @property
    def window_count(self) -> int:
        """Windows that do not overlap, the evaluation window included."""
        return (self.indices.shape[0] - 1) // self.length

    def window(self, iteration: int) -> Tensor:
        """int64 [T + 1, batch] for the iteration: steps 0..T-1 are read, steps 1..T predicted.

        Windows follow each other along the text and start again after the last one for training.
        """
        return self._window(iteration % max(1, self.window_count - 1))

    def evaluation_window(self) -> Tensor:
        """The last window, int64 [T + 1, batch]; `window` never returns it when there is another."""
        return self._window(self.window_count - 1)

    def _window(self, position: int) -> Tensor:
        start = position * self.length
        return self.indices[start : start + self.length + 1]


def character_streams(data: DataSpec, sequence: SequenceSpec) -> CharacterStreams:
    """The job's text as streams. Raises InvalidJob when it cannot be read or is shorter than a window."""
    text = load_text(data)
    steps = len(text) // sequence.batch_size
    if steps < sequence.length + 1:
        needed = sequence.batch_size * (sequence.length + 1)
        raise InvalidJob(
            "data.text",
            f"{len(text)} characters are too few for sequence.length={sequence.length} and "
            f"sequence.batch_size={sequence.batch_size}: {needed} are needed",
        )
    vocabulary = vocabulary_of(text)
    indices = vocabulary.encoded(text[: steps * sequence.batch_size])
    streams = indices.view(sequence.batch_size, steps).t().contiguous()
    return CharacterStreams(streams, sequence.length, vocabulary)


def load_text(data: DataSpec) -> str:
    """The text that `data` names, cut to `data.characters`. Raises InvalidJob when it cannot be read."""
    text = _python_text() if data.text == PYTHON_TEXT else _file_text(Path(data.text))
    return text[: data.characters]


def _python_text() -> str:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        reason = "this Python comes without its language reference (pydoc_data): name a text file instead"
        raise InvalidJob("data.text", reason) from error
    return "\n\n".join(topics[name] for name in sorted(topics))


def _file_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidJob("data.text", f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidJob("data.text", f"{path} is not UTF-8 text") from error
