"""What is measured row by row, each within a time limit of its own; kept after each, whatever comes next."""

from __future__ import annotations

import faulthandler
import gc
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

Found = dict[str, Any]
LEAST_SECONDS = 3.0
"""With less time left, a row is not begun."""
AGAIN_SECONDS = 2.0
"""A row that goes on is stopped again: an exception inside a finalizer is lost."""
LOST_SECONDS = 10.0
"""A process whose row is that much over its limit is ended: it waits for a device that will not answer."""
UNFINISHED = {"stopped": "its process ended while this was measured"}
"""What a record says until it is complete."""


class OutOfTime(BaseException):
    """A row has taken the seconds that it may. No `except Exception` of what is measured can take it for a
    failure of its own: compilers of kernels are given up after one.
    """


@dataclass(frozen=True)
class Row:
    """One measurement: `measure` fills a record bit by bit, and may yield whenever there is more to keep: a
    process that is ended inside a kernel keeps nothing by itself.
    """

    name: str
    limit_seconds: float
    measure: Callable[[Found], Iterable[None] | None]


def run(rows: Iterable[Row], *, until: float, keep: Callable[[Found], None]) -> bool:
    """Measure row after row until `until` (of the monotonic clock); `keep` gets each record, the same one
    again when it has grown. Ends at a row after which the device does not answer: false then.

    A row that cannot be begun says `not_measured`, one that is stopped or fails `stopped` or `failed`.
    """
    for row in rows:
        found: Found = {"name": row.name}
        seconds = min(row.limit_seconds, until - time.monotonic())
        print(f"{row.name} …", flush=True)
        if seconds < LEAST_SECONDS:
            keep(found | {"not_measured": "no time was left"})
            continue
        keep(found | UNFINISHED)
        _measure(row, found, seconds, lambda found: keep(found | UNFINISHED))
        keep(found)
        if not _cleaned_up():
            return False
    return True


def _measure(row: Row, found: Found, seconds: float, keep: Callable[[Found], None]) -> None:
    begin = time.monotonic()
    try:
        with time_limit(seconds):
            for _ in row.measure(found) or ():
                keep(found)
    except OutOfTime:
        found["stopped"] = f"stopped after {seconds:.0f} s"
    except Exception as error:
        found["failed"] = in_words(error)
    found["wall_seconds"] = time.monotonic() - begin


def in_words(error: Exception) -> str:
    """Kind and first line of an exception."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _cleaned_up() -> bool:
    """Give back what the row held; whether the device still answers. After a fault it never does again in
    this process.
    """
    gc.collect()
    try:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
    except RuntimeError as error:
        print(f"the device does not answer: {in_words(error)}", flush=True)
        return False
    return True


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises OutOfTime inside the context after so many seconds, as soon as Python code runs again; where
    none does for long, the process ends with status 1, and says where it was.
    """

    def stop(_signal: int, _frame: object) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_SECONDS)
    faulthandler.dump_traceback_later(seconds + LOST_SECONDS, file=sys.__stderr__, exit=True)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)
