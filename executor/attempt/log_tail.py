"""The end of a log file that another process writes, as numbered lines."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Lines(NamedTuple):
    """Some lines of a log."""

    first_line: int
    """Number of the first of them, from 1."""
    lines: list[str]


class LogTail:
    """Reads what is new. `taken` moves on only when the lines have arrived where they should."""

    def __init__(self, path: Path, *, most_lines: int, most_characters: int) -> None:
        self._path = path
        self._most_lines = most_lines
        self._most_characters = most_characters
        self._offset = 0
        self._number = 1

    def read(self) -> Lines | None:
        """The complete lines after the last ones taken, at most `most_lines`; None when there are none."""
        pieces = self._pieces()
        if not pieces:
            return None
        texts = [piece.decode("utf-8", "replace").rstrip("\r\n").replace("\0", "") for piece in pieces]
        return Lines(self._number, [text[: self._most_characters] for text in texts])

    def taken(self, lines: Lines) -> None:
        """Go on after `lines`, which `read` gave last."""
        self._offset += sum(map(len, self._pieces()[: len(lines.lines)]))
        self._number += len(lines.lines)

    def _pieces(self) -> list[bytes]:
        if not self._path.exists():
            return []
        pieces: list[bytes] = []
        with self._path.open("rb") as stream:
            stream.seek(self._offset)
            for piece in stream:
                if len(pieces) == self._most_lines or not piece.endswith(b"\n"):
                    break
                pieces.append(piece)
        return pieces
