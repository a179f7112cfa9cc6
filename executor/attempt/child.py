"""The trainer as a child process: its own process group, dead when its supervisor is, one pipe of messages.

The child is forked, so that torch is loaded once; the supervisor has no threads and no CUDA context then.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from executor.attempt.saying import lossy_text

_SET_DEATH_SIGNAL = 1
"""prctl's PR_SET_PDEATHSIG."""
_READ_BYTES = 65536
CRASHED = 70

Message = dict[str, Any]
Emit = Callable[[Message], None]
"""Sends one message to the supervisor."""


def die_with_parent(parent: int, sign: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send `sign` to this process when `parent` is gone, however it went; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_SET_DEATH_SIGNAL, int(sign), 0, 0, 0)
    if os.getppid() != parent:  # it went before the kernel was told
        os.kill(os.getpid(), sign)


class Trainer:
    """A forked child that runs `work(emit)`; its output goes to `log`."""

    def __init__(self, work: Callable[[Emit], None], *, log: Path) -> None:
        self._reading, writing = os.pipe()
        supervisor = os.getpid()
        for output in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                output.flush()
        self.process_id = os.fork()
        if self.process_id == 0:
            os.close(self._reading)
            _run_child(work, writing=writing, log=log, supervisor=supervisor)
        os.close(writing)
        os.set_blocking(self._reading, False)
        self._buffer = b""
        self._status: int | None = None
        with contextlib.suppress(OSError):  # the child does the same; whoever comes first
            os.setpgid(self.process_id, self.process_id)

    def fileno(self) -> int:
        """To wait for messages; readable too once the child is gone."""
        return self._reading

    def messages(self) -> Iterator[Message]:
        """What has arrived since the last call; broken lines of a killed child are dropped."""
        for line in self._lines():
            with contextlib.suppress(ValueError):
                yield json.loads(line)

    def _lines(self) -> list[bytes]:
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self._reading, _READ_BYTES):
                self._buffer += chunk
        *lines, self._buffer = self._buffer.split(b"\n")
        return lines

    @property
    def exit_status(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        if self._status is None:
            found, status = os.waitpid(self.process_id, os.WNOHANG)
            if found:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def ask_to_stop(self) -> None:
        """SIGTERM: it finishes its step, saves and ends."""
        if self.exit_status is None:
            os.kill(self.process_id, signal.SIGTERM)

    def kill_group(self) -> None:
        """SIGKILL to the trainer and every process that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process_id, signal.SIGKILL)

    def close(self) -> None:
        """Kill what is left of the group, collect it, close the pipe; once."""
        if self._reading < 0:
            return
        self.kill_group()
        if self._status is None:
            _, status = os.waitpid(self.process_id, 0)
            self._status = os.waitstatus_to_exitcode(status)
        os.close(self._reading)
        self._reading = -1


def _run_child(work: Callable[[Emit], None], *, writing: int, log: Path, supervisor: int) -> None:
    """In the child: never returns."""
    status = CRASHED
    try:
        os.setpgid(0, 0)
        die_with_parent(supervisor)
        _redirect_output(log)
        work(_emitter(writing))
        status = 0
    except BaseException:  # a forked child must not return into its parent's code
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _redirect_output(log: Path) -> None:
    """Standard output and error go to `log`, or where the supervisor's go when there is no room for one."""
    with contextlib.suppress(OSError):
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        os.close(descriptor)
    sys.stdout, sys.stderr = lossy_text(1), lossy_text(2)


def _emitter(writing: int) -> Emit:
    def emit(message: Message) -> None:
        rest = json.dumps(message).encode() + b"\n"
        while rest:
            rest = rest[os.write(writing, rest) :]

    return emit
