"""A wish to stop, between a signal handler and the places where stopping is safe."""

from __future__ import annotations

import signal
import time
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequested(Exception):
    """The supervisor asked for an end; nothing is half done."""


class Stopping:
    """Remembers that a signal came."""

    def __init__(self) -> None:
        self.is_requested = False

    def listen_to_both(self) -> None:
        """From now on SIGTERM and SIGINT are heard, also those that waited while they were blocked."""
        for sign in STOP_SIGNALS:
            signal.signal(sign, self.on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def listen(self) -> None:
        """From now on SIGTERM is heard; SIGINT is the supervisor's to translate."""
        signal.signal(signal.SIGTERM, self.on_signal)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def on_signal(self, _signal: int, _frame: FrameType | None) -> None:
        """The handler: notes the wish, and nothing else."""
        self.is_requested = True

    def check(self) -> None:
        """Raise StopRequested if the signal came."""
        if self.is_requested:
            raise StopRequested("asked to stop")

    def wait(self, seconds: float) -> None:
        """Sleep; raise StopRequested as soon as the signal comes."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, 0.1))
        self.check()
