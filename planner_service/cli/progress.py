"""A sign of life on standard error while something takes long; silent unless that is a terminal."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

FIRST_SIGN_SECONDS = 0.5
INTERVAL_SECONDS = 0.2
_FRAMES = "|/-\\"


@contextmanager
def progress(what: str) -> Iterator[None]:
    """Show `what` with a turning bar until the block ends, from half a second on."""
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()
    turner = threading.Thread(target=_turn, args=(what, done), daemon=True)
    turner.start()
    try:
        yield
    finally:
        done.set()
        turner.join()


def _turn(what: str, done: threading.Event) -> None:
    if done.wait(FIRST_SIGN_SECONDS):
        return
    turn = 0
    while not done.is_set():
        sys.stderr.write(f"\r{_FRAMES[turn % len(_FRAMES)]} {what} ")
        sys.stderr.flush()
        turn += 1
        done.wait(INTERVAL_SECONDS)
    sys.stderr.write("\r\033[K")
    sys.stderr.flush()
