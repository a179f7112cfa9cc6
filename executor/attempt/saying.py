"""Words for a log whose disk may be full: what it does not take is dropped, and nothing else is lost."""

from __future__ import annotations

import io
import os
from contextlib import suppress
from typing import Any

_STANDARD_ERROR = 2


def say(line: str) -> None:
    """A line for standard error, past its buffer: what stays in there would fail once more at exit."""
    with suppress(OSError):
        os.write(_STANDARD_ERROR, f"{line}\n".encode(errors="replace"))


def lossy_text(descriptor: int) -> io.TextIOWrapper:
    """A stream that writes every line at once, and raises nothing where it cannot."""
    stream = io.BufferedWriter(_LossyFile(descriptor, "wb", closefd=False))  # goes on after half a line
    return io.TextIOWrapper(stream, encoding="utf-8", errors="replace", line_buffering=True)


class _LossyFile(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes
