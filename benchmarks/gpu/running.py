"""A process of tests that can be asked at any moment what it has said."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any

from benchmarks.machine import ROOT

GRACE_SECONDS = 3.0
"""Between asking tests for what they have found so far and ending them."""
_STATUSES = range(6)
"""Of pytest: any other one is of a process that was lost."""


def end(process: subprocess.Popen[Any]) -> None:
    """At once; one that the driver of a lost device holds on to is left to it: nobody waits for it."""
    process.kill()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=GRACE_SECONDS)


class Running:
    """A process of tests. What it says goes to a file."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        # Plugins that happen to be installed there are none of ours, and their warnings would be errors.
        # A summary of 80 columns leaves the reasons out.
        alone = {**environment, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "COLUMNS": "160"}
        self._begin = time.monotonic()
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        with _sigint_heard():
            self._process = subprocess.Popen(
                list(command), cwd=ROOT, env=alone, stdout=self._file, stderr=subprocess.STDOUT
            )

    @property
    def goes_on(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def said(self) -> str:
        """All that it has said by now."""
        # The process writes where this file's position is: reading must not move that.
        file = self._file.fileno()
        return os.pread(file, os.fstat(file).st_size, 0).decode("utf-8", errors="replace")

    def ended(self, until: float) -> dict[str, Any]:
        """Exit status (None when it was stopped), what it said, and the last line of that. Asked to stop
        when its time is over, so that what failed is told; ended soon after.
        """
        status = self._status_within(until - time.monotonic())
        seconds = time.monotonic() - self._begin
        if status is None:
            self._process.send_signal(signal.SIGINT)
            if self._status_within(GRACE_SECONDS) is None:
                end(self._process)
        with self._file:
            output = self.said()
        last = (output.strip().splitlines() or ["no output"])[-1].strip(" =")
        if status is None:
            last = f"stopped after {seconds:.0f} s"
        elif status not in _STATUSES:
            last = f"its process ended with {status} at {last}"
        return {"exit_status": status, "output": output, "summary": last}

    def _status_within(self, seconds: float) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout=max(seconds, 0.0))
        return None


@contextmanager
def _sigint_heard() -> Iterator[None]:
    """What is started within the context hears it, whatever this process does. A shell's background jobs are
    started deaf to it, and so would be all that they start.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)
