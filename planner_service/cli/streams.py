"""The standard streams as commands find them: closed, of a narrow encoding, with a reader that has left."""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
from typing import IO, TextIO

ESCAPED = "tightfit-escaped"
"""Name of the error handler below."""


def prepare_streams() -> None:
    """What the encoding of an output lacks is escaped from here on, and closed streams lead nowhere."""
    codecs.register_error(ESCAPED, _escaped)
    # Python has None for what was closed when it started, and `print` to that goes to standard output.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, _nowhere(mode))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ESCAPED)


def silence(stream: TextIO) -> None:
    """Let what is left to write go nowhere: Python would complain of its reader once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _nowhere(mode: str) -> IO[str]:
    # Held by `sys` until the process ends.
    return open(os.devnull, mode, encoding="utf-8")  # noqa: PTH123


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """As JSON escapes it: what was a JSON document stays one."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end
