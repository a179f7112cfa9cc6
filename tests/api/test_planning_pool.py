"""One computation per question, stopped as soon as nobody waits for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest
from starlette.requests import Request

from planner_service.api.access.identity import Caller, remember_caller
from planner_service.api.answers.planning_pool import PlanningPool
from planner_service.api.errors import ClientGone, PlanningTimeout, QueueFull
from planner_service.chain import PlanningError
from planner_service.solvers import Cancellation, Cancelled

PATIENCE_SECONDS = 20


class Client:
    """A request's client, which hangs up when told."""

    def __init__(self, name: str = "") -> None:
        """`name` of the caller; one that nobody asked for it where it is empty."""
        self._gone = asyncio.Event()
        scope = {"type": "http"}
        self.request = Request(scope, self._receive)
        if name:
            remember_caller(scope, Caller(name))

    async def _receive(self) -> dict[str, str]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    def hang_up(self) -> None:
        self._gone.set()


class Work:
    """A computation that ends when released, or when it is cancelled as the solvers are."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.started = threading.Semaphore(0)
        self.runs = 0
        self.stopped = threading.Event()

    def __call__(self, cancellation: Cancellation) -> bytes:
        self.runs += 1
        self.started.release()
        while not self.released.wait(0.005):
            if cancellation.cancelled:
                self.stopped.set()
                raise Cancelled
        return b"answer"

    async def wait_for_start(self) -> None:
        assert await asyncio.to_thread(self.started.acquire, timeout=PATIENCE_SECONDS)

    async def wait_for_stop(self) -> None:
        assert await asyncio.to_thread(self.stopped.wait, PATIENCE_SECONDS)


def in_pool(
    scenario: Callable[[PlanningPool], Awaitable[None]], *, queue_length: int = 8, timeout_seconds: float = 60
) -> None:
    """Run `scenario` with a pool of one thread."""

    async def run() -> None:
        pool = PlanningPool(threads=1, queue_length=queue_length, timeout_seconds=timeout_seconds)
        try:
            await asyncio.wait_for(scenario(pool), PATIENCE_SECONDS)
        finally:
            await pool.close()

    asyncio.run(run())


def test_one_question_asked_many_times_is_computed_once():
    async def scenario(pool: PlanningPool) -> None:
        work = Work()
        asked = [asyncio.ensure_future(pool.answer("q", work, Client().request)) for _ in range(5)]
        await work.wait_for_start()
        work.released.set()
        assert await asyncio.gather(*asked) == [b"answer"] * 5
        assert work.runs == 1

    in_pool(scenario)


def test_a_question_is_computed_again_once_it_was_answered():
    async def scenario(pool: PlanningPool) -> None:
        work = Work()
        work.released.set()
        for _ in range(2):
            await pool.answer("q", work, Client().request)
        assert work.runs == 2

    in_pool(scenario)


def test_the_computation_stops_when_its_only_client_hangs_up():
    async def scenario(pool: PlanningPool) -> None:
        work, client = Work(), Client()
        asked = asyncio.ensure_future(pool.answer("q", work, client.request))
        await work.wait_for_start()
        client.hang_up()
        with pytest.raises(ClientGone):
            await asked
        await work.wait_for_stop()

    in_pool(scenario)


def test_the_computation_goes_on_while_another_client_waits():
    async def scenario(pool: PlanningPool) -> None:
        work, leaving = Work(), Client()
        left = asyncio.ensure_future(pool.answer("q", work, leaving.request))
        stayed = asyncio.ensure_future(pool.answer("q", work, Client().request))
        await work.wait_for_start()
        leaving.hang_up()
        with pytest.raises(ClientGone):
            await left
        work.released.set()
        assert await stayed == b"answer"

    in_pool(scenario)


def test_who_asks_after_everybody_left_gets_a_fresh_computation():
    async def scenario(pool: PlanningPool) -> None:
        abandoned, client = Work(), Client()
        asked = asyncio.ensure_future(pool.answer("q", abandoned, client.request))
        await abandoned.wait_for_start()
        client.hang_up()
        with pytest.raises(ClientGone):
            await asked
        fresh = Work()
        fresh.released.set()
        assert await pool.answer("q", fresh, Client().request) == b"answer"

    in_pool(scenario)


def test_the_computation_stops_at_the_time_limit():
    async def scenario(pool: PlanningPool) -> None:
        work = Work()
        with pytest.raises(PlanningTimeout) as refused:
            await pool.answer("q", work, Client().request)
        assert refused.value.limit_seconds == 0.05
        await work.wait_for_stop()

    in_pool(scenario, timeout_seconds=0.05)


def test_time_in_the_queue_counts_and_what_was_queued_never_runs():
    async def scenario(pool: PlanningPool) -> None:
        blocking, queued, last = Work(), Work(), Work()

        def deaf(_cancellation: Cancellation) -> bytes:
            return blocking(Cancellation())

        first = asyncio.ensure_future(pool.answer("first", deaf, Client().request))
        await blocking.wait_for_start()
        with pytest.raises(PlanningTimeout):
            await pool.answer("second", queued, Client().request)
        with pytest.raises(PlanningTimeout):
            await first
        blocking.released.set()
        last.released.set()
        assert await pool.answer("last", last, Client().request) == b"answer"
        assert queued.runs == 0

    in_pool(scenario, timeout_seconds=0.2)


def test_beyond_the_queue_is_refused_until_there_is_room_again():
    async def scenario(pool: PlanningPool) -> None:
        work = Work()
        running = asyncio.ensure_future(pool.answer("running", work, Client().request))
        await work.wait_for_start()
        waiting = asyncio.ensure_future(pool.answer("waiting", work, Client().request))
        await asyncio.sleep(0)
        with pytest.raises(QueueFull) as refused:
            await pool.answer("one too many", work, Client().request)
        assert refused.value.queue_length == 1
        work.released.set()
        await asyncio.gather(running, waiting)
        assert await pool.answer("one too many", work, Client().request) == b"answer"

    in_pool(scenario, queue_length=1)


def test_who_asks_for_much_keeps_nobody_waiting_for_all_of_it():
    """Callers take turns; what was asked for before is done before within each caller's own"""
    order: list[str] = []

    def noting(name: str) -> Callable[[Cancellation], bytes]:
        return lambda _cancellation: order.append(name) or name.encode()

    async def scenario(pool: PlanningPool) -> None:
        work = Work()
        asked = [asyncio.ensure_future(pool.answer("running", work, Client("many").request))]
        await work.wait_for_start()
        for name in ("many 1", "many 2", "many 3", "few 1", "few 2", "one 1"):
            question = pool.answer(name, noting(name), Client(name.split()[0]).request)
            asked.append(asyncio.ensure_future(question))
            await asyncio.sleep(0)
        work.released.set()
        await asyncio.gather(*asked)
        assert order == ["many 1", "few 1", "one 1", "many 2", "few 2", "many 3"]
        assert pool.unfinished == 0

    in_pool(scenario)


def test_what_nobody_waits_for_any_more_leaves_the_queue_and_its_place_to_others():
    async def scenario(pool: PlanningPool) -> None:
        work, leaving = Work(), Client("a")
        running = asyncio.ensure_future(pool.answer("running", work, Client("b").request))
        await work.wait_for_start()
        queued = asyncio.ensure_future(pool.answer("queued", Work(), leaving.request))
        await asyncio.sleep(0)
        assert pool.unfinished == 2
        leaving.hang_up()
        with pytest.raises(ClientGone):
            await queued
        assert pool.unfinished == 1
        work.released.set()
        assert await running == b"answer"

    in_pool(scenario, queue_length=1)


def test_an_error_reaches_everybody_who_waits():
    def fail(cancellation: Cancellation) -> bytes:
        raise ValueError("no plan")

    async def scenario(pool: PlanningPool) -> None:
        asked = [pool.answer("q", fail, Client().request) for _ in range(2)]
        errors = await asyncio.gather(*asked, return_exceptions=True)
        assert [str(error) for error in errors] == ["no plan", "no plan"]

    in_pool(scenario)


def test_closing_stops_what_runs():
    async def scenario(pool: PlanningPool) -> None:
        work = Work()
        asked = asyncio.ensure_future(pool.answer("q", work, Client().request))
        await work.wait_for_start()
        await pool.close()
        assert work.stopped.is_set()
        with pytest.raises((Cancelled, asyncio.CancelledError)):
            await asked

    in_pool(scenario)


def test_it_tells_how_every_computation_ended():
    ended: list[str] = []

    async def run() -> None:
        pool = PlanningPool(
            threads=1, queue_length=9, timeout_seconds=60, on_end=lambda outcome, _: ended.append(outcome)
        )
        done, stopped, client = Work(), Work(), Client()
        done.released.set()
        await pool.answer("done", done, client.request)
        for error in (PlanningError("no"), ValueError("oh")):
            with pytest.raises(type(error)):
                await pool.answer(str(error), _raising(error), client.request)
        left = asyncio.ensure_future(pool.answer("stopped", stopped, client.request))
        await stopped.wait_for_start()
        client.hang_up()
        await asyncio.wait([left])
        await pool.close()
        await asyncio.sleep(0)

    asyncio.run(run())
    assert ended == ["answered", "refused", "failed", "cancelled"]


def _raising(error: Exception) -> Callable[[Cancellation], bytes]:
    def work(cancellation: Cancellation) -> bytes:
        raise error

    return work
