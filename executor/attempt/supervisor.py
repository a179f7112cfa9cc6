"""The supervisor: opens the attempt, starts the trainer, and speaks with the service while it trains.

It is the heartbeat's own process: a trainer that holds the interpreter, swaps or hangs in a kernel cannot
starve it. What the service says, the trainer's process group gets to feel: a fence or a cancellation that
is not heeded ends it.
"""

from __future__ import annotations

import json
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from types import FrameType
from typing import Any

from executor.attempt.child import Trainer
from executor.attempt.log_tail import LogTail
from executor.attempt.oom_killer import oom_kills
from executor.attempt.refusals import require_no_fence, without_what_may_be_refused
from executor.attempt.saying import say
from executor.attempt.stopping import STOP_SIGNALS, Stopping
from executor.attempt.task import Task
from executor.attempt.trainer import run_task
from executor.service.link import (
    MAXIMUM_DETAIL_CHARACTERS,
    MAXIMUM_LINE_CHARACTERS,
    MAXIMUM_LINES,
    Attempt,
    AttemptLink,
    Refused,
    Unanswered,
)

TICK_SECONDS = 0.5
LOG_SECONDS = 2.0
REPORT_SECONDS = 600.0
"""How long a report is sent again while nobody answers."""
GRACE_SECONDS = 30.0
"""A trainer that was asked to stop and is still in its step after this is killed."""


class Ending(IntEnum):
    """The exit status of `tightfit-worker attempt`."""

    SUCCEEDED = 0
    FAILED = 1
    """An error or out of memory, reported."""
    REFUSED = 2
    """The attempt could not be opened."""
    FENCED = 3
    """Another attempt took over, or the job is gone: the process group was stopped."""
    UNREPORTED = 4
    """Done, but nobody took the report; it is in the work folder."""
    GIVEN_BACK = 75
    """Stopped by a signal: the job is back in the queue. (EX_TEMPFAIL: schedulers may start it again.)"""


@dataclass
class Supervisor:
    """One attempt from its first heartbeat to its report."""

    task: Task
    attempt: Attempt
    link: AttemptLink
    grace_seconds: float = GRACE_SECONDS
    clock: Callable[[], float] = time.monotonic
    stopping: Stopping = field(default_factory=Stopping)
    """What heard signals before `run` does."""
    progress: dict[str, Any] = field(default_factory=dict)
    """Fields of the next heartbeat."""
    result: dict[str, Any] | None = None
    """Fields of the report, once the trainer has said them."""
    stop_asked: str | None = None
    """signal or cancel: why the trainer was asked to stop."""
    _beat_at: float = 0.0
    _logs_at: float = 0.0
    _kill_at: float = float("inf")

    def run(self) -> Ending:
        """Train and report; returns how it ended. Whatever happens, no process of the trainer is left."""
        kills = oom_kills()
        # Until both processes have their handlers: a signal in between would kill without a report.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        if self.stopping.is_requested:
            self.stop_asked = "signal"
        trainer = Trainer(lambda emit: run_task(self.task, emit), log=self.task.log)
        for sign in STOP_SIGNALS:
            signal.signal(sign, self._on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        logs = LogTail(self.task.log, most_lines=MAXIMUM_LINES, most_characters=MAXIMUM_LINE_CHARACTERS)
        try:
            self._accompany(trainer, logs)
            trainer.close()
            return self._report(trainer.exit_status or 0, logs, was_oom=oom_kills() > kills)
        except Refused as fence:
            trainer.kill_group()
            say(f"fenced, the trainer's process group is stopped: {fence}")
            return Ending.FENCED
        finally:
            trainer.close()
            self.link.close()

    def _on_signal(self, _signal: int, _frame: FrameType | None) -> None:
        self.stop_asked = self.stop_asked or "signal"

    def _accompany(self, trainer: Trainer, logs: LogTail) -> None:
        """Until the trainer has ended. Raises Refused when the service fences this attempt."""
        asked = False
        while trainer.exit_status is None:
            if self.stop_asked and not asked:
                asked = True
                trainer.ask_to_stop()
                self._kill_at = self.clock() + self.grace_seconds
            if self.clock() >= self._kill_at:
                trainer.kill_group()
            self._beat()
            self._stream(logs)
            select.select([trainer], [], [], self._tick())
            self._take(trainer)
        self._take(trainer)

    def _tick(self) -> float:
        return max(0.01, min(TICK_SECONDS, self._beat_at - self.clock()))

    def _take(self, trainer: Trainer) -> None:
        for message in trainer.messages():
            kind = message.pop("kind")
            if kind == "progress":
                self.progress = message
            else:
                self.result = message

    def _beat(self) -> None:
        """Heartbeat when it is time. A service that does not answer is asked again at the next one."""
        if self.clock() < self._beat_at:
            return
        self._beat_at = self.clock() + self.attempt.heartbeat_seconds
        try:
            if self.link.heartbeat(self.progress) and self.stop_asked is None:
                self.stop_asked = "cancel"
        except Unanswered as error:
            say(f"no answer to the heartbeat, training goes on: {error}")
        except Refused as refusal:
            require_no_fence(refusal)
            say(f"the heartbeat is not taken, training goes on: {refusal}")

    def _stream(self, logs: LogTail) -> None:
        if self.clock() < self._logs_at:
            return
        self._logs_at = self.clock() + LOG_SECONDS
        self._send_lines(logs)

    def _send_lines(self, logs: LogTail) -> bool:
        """Send what is new; whether there may be more."""
        lines = logs.read()
        if lines is None:
            return False
        try:
            self.link.send_logs(first_line=lines.first_line, lines=lines.lines)
        except Unanswered:
            return False
        except Refused as refusal:
            require_no_fence(refusal)
            say(f"lines of the log are not taken: {refusal}")
        logs.taken(lines)
        return len(lines.lines) == MAXIMUM_LINES

    def _report(self, exit_status: int, logs: LogTail, *, was_oom: bool) -> Ending:
        fields = self._fields(exit_status, was_oom=was_oom)
        try:
            return self._sent(fields, logs)
        finally:  # after it was sent: a disk that is full or hangs keeps the result from nobody
            self._keep(fields)

    def _keep(self, fields: dict[str, Any]) -> None:
        """The whole report, in the work folder."""
        try:
            self.task.report.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            say(f"the report is NOT kept in the work folder: {error}")

    def _sent(self, fields: dict[str, Any], logs: LogTail) -> Ending:
        deadline, pause = self.clock() + REPORT_SECONDS, 0.5
        while True:
            try:
                while self._send_lines(logs):
                    pass
                self.link.report(fields)
            except Refused as refusal:
                require_no_fence(refusal)
                say(f"the report is not taken: {refusal}")
                shorter = without_what_may_be_refused(fields, str(refusal))
                if shorter is None:
                    return Ending.UNREPORTED
                fields = shorter
            except Unanswered as error:
                self._keep(fields)  # whatever becomes of this process while it waits
                if self.clock() + pause > deadline:
                    say(f"the report was not taken: {error}")
                    return Ending.UNREPORTED
                time.sleep(pause)
                pause = min(2 * pause, float(self.attempt.heartbeat_seconds))
            else:
                say(f"attempt {self.task.number} of job {self.task.job_id}: {fields['outcome']}")
                return _ENDINGS[fields["outcome"]]

    def _fields(self, exit_status: int, *, was_oom: bool) -> dict[str, Any]:
        """The report: what the trainer said, or what its end tells."""
        fields = self.result or self._unsaid(exit_status, was_oom=was_oom)
        if fields["outcome"] == "preempted" and self.stop_asked == "cancel":
            fields["outcome"] = "cancelled"
        if "detail" in fields:
            fields["detail"] = fields["detail"][:MAXIMUM_DETAIL_CHARACTERS]
        return fields

    def _unsaid(self, exit_status: int, *, was_oom: bool) -> dict[str, Any]:
        """For a trainer that went without a word."""
        reached: dict[str, Any] = {
            name: self.progress[name] for name in ("iteration", "loss") if name in self.progress
        }
        if self.stop_asked:
            return {"outcome": "preempted", "detail": "killed in its step after the grace period", **reached}
        if exit_status == -signal.SIGKILL and was_oom:
            return {"outcome": "oom", "detail": "the kernel's out-of-memory killer ended it", **reached}
        how = f"signal {-exit_status}" if exit_status < 0 else f"exit status {exit_status}"
        return {"outcome": "error", "detail": f"the trainer ended by {how} without a result", **reached}


_ENDINGS = {
    "succeeded": Ending.SUCCEEDED,
    "oom": Ending.FAILED,
    "error": Ending.FAILED,
    "cancelled": Ending.SUCCEEDED,
    "preempted": Ending.GIVEN_BACK,
}
