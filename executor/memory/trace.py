"""Every allocation and release of tensor memory on the CPU, in order, with marks in between.

The events come from autograd's profiler, whose memory events see each call of the CPU allocator, buffers
inside fused kernels included; nothing is sampled. Operators are left out: there are several of them for
every allocation, and each costs memory and time of the run that is watched.

There is one profiler in a process: one thread at a time records or probes, the others wait; and while a
profile of the caller's is under way nothing is recorded (`ProfilerBusy`).
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from torch._C._profiler import RecordScope
from torch.autograd import _enable_profiler  # type: ignore[attr-defined]
from torch.autograd import profiler as autograd_profiler

# Not that of torch.profiler, which loads the compiler at its first start: two seconds, and 65 MB.
from torch.autograd.profiler import profile, record_function

from executor.errors import ProfilerBusy
from executor.memory.cuda_memory import hidden

MOST_WAIT_SECONDS = 600.0
"""How long a thread waits for another that records: what is recorded may itself wait for this thread."""
_MARK = "tightfit:"
_ALLOCATION = "[memory]"

Result = TypeVar("Result")


class Event(NamedTuple):
    """One allocation (bytes > 0) or release (bytes < 0), or a mark (bytes == 0, with a name)."""

    time_ns: int
    bytes: int
    address: int
    mark: str | None = None


class Sample(NamedTuple):
    """Bytes that were live, of those allocated since the recording began."""

    time_ns: int
    live_bytes: int
    mark: str | None


class Recording:
    """The events of one recording, which may be paused."""

    def __init__(self) -> None:
        self._backward_pass = _backward_pass()
        self._events: list[Event] = []
        self._profiler: Any = None

    @property
    def is_running(self) -> bool:
        """Whether it was started, and neither paused nor ended."""
        return self._profiler is not None

    def require_same_pass(self) -> None:
        """Raise ProfilerBusy in a backward pass that began after the recording: autograd gives each of its
        nodes the profiler that was there before, so that one which is paused in between is never the same.
        """
        if _backward_pass() != self._backward_pass:
            raise ProfilerBusy(
                "a loop is called for the first time in a backward pass (in a function that "
                "torch.utils.checkpoint runs again, say) which is measured as a whole: call it once before, "
                "with the same shapes and budget, or give a plan"
            )

    def start(self) -> None:
        """Begin, or go on."""
        # Kineto writes a line to standard output at every start and stop unless it was told not to.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        self._profiler = _MemoryProfile(profile_memory=True)
        self._profiler.__enter__()

    def stop(self) -> None:
        """End, or pause."""
        profiler, self._profiler = self._profiler, None
        if profiler is not None:
            profiler.__exit__(None, None, None)
            self._events.extend(_events_of(profiler))

    def samples(self) -> Iterator[Sample]:
        """Live bytes after every event. Releases of what was allocated before the start count nothing."""
        sizes: dict[int, int] = {}
        live = 0
        for event in self._events:
            if event.bytes > 0:
                live += event.bytes - sizes.pop(event.address, 0)
                sizes[event.address] = event.bytes
            elif event.bytes < 0:
                live -= sizes.pop(event.address, 0)
            yield Sample(event.time_ns, live, event.mark)


class _MemoryProfile(profile):
    """autograd's profiler, listening to memory and to marks only."""

    def _start_trace(self) -> None:
        """What the base class does, with the scopes that its binding takes and its caller leaves out."""
        profiler: Any = self
        enable: Any = _enable_profiler
        profiler.entered = True
        config = profiler.config(create_trace_id=False)
        enable(config, profiler.kineto_activities, {RecordScope.USER_SCOPE})


_open: list[Recording] = []
_turn = threading.RLock()
"""Held by the thread that records or probes, to the end."""


def record(function: Callable[[], Result]) -> tuple[Recording, Result]:
    """Run `function` under a recording. Recordings do not nest: an outer one is paused.

    Raises ProfilerBusy while a profile of the caller's is under way, or another thread records for long.
    """
    with paused():
        _require_no_profile()
        recording = Recording()
        _open.append(recording)
        recording.start()
        try:
            result = function()
        finally:
            recording.stop()
            _open.remove(recording)
    return recording, result


@contextmanager
def paused() -> Iterator[None]:
    """Within the context nothing is recorded, on the CPU or by CUDA's counters, and no other thread enters.

    Raises ProfilerBusy when another thread is in there for long.
    """
    if not _turn.acquire(timeout=MOST_WAIT_SECONDS):
        raise ProfilerBusy(
            f"another thread has measured or probed for {MOST_WAIT_SECONDS:.0f} s, and there is one profiler "
            "in a process: what is measured must not wait for another thread's first call of a loop; make "
            "that call before"
        )
    try:
        with _outer_paused():
            yield
    finally:
        _turn.release()


@contextmanager
def _outer_paused() -> Iterator[None]:
    # Of several contexts in one another the outermost pauses and resumes: else what is probed between the
    # recordings of a rehearsal would count.
    outer = _open[-1] if _open and _open[-1].is_running else None
    if outer is not None:
        outer.require_same_pass()
        gc.collect()  # graphs in reference cycles would be released unseen, and count as live for ever
        outer.stop()
    try:
        with hidden():
            yield
    finally:
        if outer is not None:
            outer.start()


def _require_no_profile() -> None:
    """Raise ProfilerBusy while a profile that is not ours is under way, or about to begin: torch would lose
    it, or crash.
    """
    if autograd_profiler._is_profiler_enabled or _is_warming_up():  # noqa: SLF001 - torch's only word on it
        raise ProfilerBusy(
            "torch's profiler is under way, of which there is one in a process: measure and the first call "
            "of a loop need it themselves; call the loop once, with the same shapes and budget, before the "
            "profile begins, or give a plan"
        )


def _backward_pass() -> int:
    """The number of the backward pass that this thread is in; -1 outside of any."""
    return torch._C._current_graph_task_id()  # noqa: SLF001 - there is no other way in


def _is_warming_up() -> bool:
    """Whether a profile by a schedule is between its preparation and its start, which torch tells nobody."""
    module: Any = sys.modules.get("torch.profiler.profiler")
    if module is None or not autograd_profiler.KinetoStepTracker._step_dict:  # noqa: SLF001
        return False
    return any(
        each.current_action is module.ProfilerAction.WARMUP and each.profiler is not None
        for each in gc.get_objects()
        if issubclass(type(each), module.profile)
    )


def mark(name: str) -> None:
    """Leave a mark in the recording that is under way, if there is one."""
    if _open:
        with record_function(_MARK + name):
            pass


def _events_of(profiler: Any) -> list[Event]:
    todo = list(profiler.kineto_results.experimental_event_tree())
    events: list[Event] = []
    while todo:
        node = todo.pop()
        if node.name == _ALLOCATION:
            fields = node.extra_fields
            if fields.device.type == "cpu":
                events.append(Event(node.start_time_ns, fields.alloc_size, fields.ptr))
        elif node.name.startswith(_MARK):
            events.append(Event(node.start_time_ns, 0, 0, node.name[len(_MARK) :]))
        todo.extend(node.children)
    events.sort(key=lambda event: event.time_ns)
    return events
