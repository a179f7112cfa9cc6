"""Planning off the event loop: a few threads, a bounded queue, one computation per question.

The solvers' kernels release the interpreter's lock, so a thread is enough to keep the service
answering. A thread cannot be stopped from outside: the solvers poll a cancellation flag, which is
raised when nobody waits for the answer any more or when the time limit has passed. Callers take turns.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from starlette.requests import Request

from planner_service.api.access.identity import caller_of
from planner_service.api.answers.fair_queue import FairQueue
from planner_service.api.errors import ClientGone, PlanningTimeout, QueueFull, TooMuchPlanning
from planner_service.chain import PlanningError
from planner_service.solvers import Cancellation, Cancelled

log = logging.getLogger(__name__)

Work = Callable[[Cancellation], bytes]


class _Flight:
    """One computation, and how many requests wait for it."""

    def __init__(self, work: Work, caller: str, timeout_seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self.work = work
        self.caller = caller
        self.future: asyncio.Future[bytes] = loop.create_future()
        self.future.add_done_callback(_retrieve)
        self.cancellation = Cancellation()
        self.started = loop.time()
        self.deadline = self.started + timeout_seconds
        self.waiting = 0


def _retrieve(future: asyncio.Future[bytes]) -> None:
    # A computation that nobody waits for may fail unseen; asyncio would complain about that.
    if not future.cancelled():
        future.exception()


class PlanningPool:
    """Runs the planner for the routes. Belongs to one event loop."""

    def __init__(
        self,
        *,
        threads: int,
        queue_length: int,
        timeout_seconds: float,
        most_per_caller: int = 0,
        on_end: Callable[[str, float], None] = lambda outcome, seconds: None,
    ) -> None:
        """`most_per_caller` 0: as many as the queue holds.

        `on_end` is told how each computation ended and how many seconds it took, waiting included.
        """
        self._on_end = on_end
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="planning")
        self._threads = threads
        self._queue_length = queue_length
        self._timeout_seconds = timeout_seconds
        self._flights: dict[str, _Flight] = {}
        self._queue: FairQueue[_Flight] = FairQueue()
        self._running = 0
        self._most_per_caller = most_per_caller
        self._by_caller: Counter[str] = Counter()
        self.unfinished = 0
        """Computations that run or wait for a thread."""

    async def answer(self, question: str, work: Work, request: Request) -> bytes:
        """What `work` returns; requests with the same `question` at the same time share one run.

        Raises QueueFull, TooMuchPlanning, PlanningTimeout, ClientGone (as soon as `request`'s client
        hangs up) and whatever `work` raises.
        """
        flight = self._flights.get(question) or self._take_off(question, work, caller_of(request).name)
        flight.waiting += 1
        gone = asyncio.ensure_future(_hung_up(request))
        try:
            awaited: set[asyncio.Future[Any]] = {flight.future, gone}
            remaining = max(0, flight.deadline - asyncio.get_running_loop().time())
            await asyncio.wait(awaited, timeout=remaining, return_when=asyncio.FIRST_COMPLETED)
            if flight.future.done():
                return flight.future.result()
            if gone.done():
                raise ClientGone
            raise PlanningTimeout(limit_seconds=self._timeout_seconds)
        finally:
            gone.cancel()
            flight.waiting -= 1
            if not flight.waiting:
                self._land(question, flight)

    def _take_off(self, question: str, work: Work, caller: str) -> _Flight:
        if self.unfinished >= self._threads + self._queue_length:
            raise QueueFull(queue_length=self._queue_length)
        if self._most_per_caller and self._by_caller[caller] >= self._most_per_caller:
            raise TooMuchPlanning(maximum_computations=self._most_per_caller)
        flight = self._flights[question] = _Flight(work, caller, self._timeout_seconds)
        self.unfinished += 1
        self._by_caller[caller] += 1
        self._queue.put(caller, flight)
        self._start()
        return flight

    def _start(self) -> None:
        """Have threads do what waits, as far as there are any."""
        while self._running < self._threads and (flight := self._queue.take()) is not None:
            done = self._executor.submit(flight.work, flight.cancellation)
            self._running += 1
            done.add_done_callback(partial(self._tell, asyncio.get_running_loop(), flight))

    def _tell(self, loop: asyncio.AbstractEventLoop, flight: _Flight, done: Future[bytes]) -> None:
        """From the thread that has done it."""
        loop.call_soon_threadsafe(self._ended, flight, done)

    def _ended(self, flight: _Flight, done: Future[bytes]) -> None:
        """A thread is free again."""
        self._running -= 1
        self._start()
        error = done.exception()
        self._finished(flight, _outcome(error))
        if flight.future.done():  # nobody waits
            return
        if error is None:
            flight.future.set_result(done.result())
        else:
            flight.future.set_exception(error)

    def _finished(self, flight: _Flight, outcome: str) -> None:
        caller = flight.caller
        self.unfinished -= 1
        self._by_caller[caller] -= 1
        if not self._by_caller[caller]:
            del self._by_caller[caller]
        self._on_end(outcome, asyncio.get_running_loop().time() - flight.started)

    def _land(self, question: str, flight: _Flight) -> None:
        """Nobody waits any more: forget the flight, and stop it when it still runs."""
        if self._flights.get(question) is flight:
            del self._flights[question]
        if not flight.future.done():
            log.info("planning stopped", extra={"action": "planning_stopped", "question": question})
            flight.cancellation.cancel()
            flight.future.cancel()
            if self._queue.remove(flight.caller, flight):
                self._finished(flight, "cancelled")

    async def close(self) -> None:
        """Stop every computation and wait for the threads."""
        for question, flight in list(self._flights.items()):
            self._land(question, flight)
        await asyncio.to_thread(self._executor.shutdown)


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return "answered"
    if isinstance(error, Cancelled):
        return "cancelled"
    return "refused" if isinstance(error, PlanningError) else "failed"


async def _hung_up(request: Request) -> None:
    """Return when the client has closed the connection; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
