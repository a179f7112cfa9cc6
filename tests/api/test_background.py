"""What works beside the requests survives faults that nobody thought of."""

from __future__ import annotations

import asyncio

from planner_service.api import background
from planner_service.api.background import kept_going
from planner_service.api.jobs import event_watch
from planner_service.api.jobs.event_watch import EventWatch


def test_work_begins_again_after_a_fault_and_ends_when_it_is_done(monkeypatch, caplog):
    monkeypatch.setattr(background, "PAUSE_SECONDS", 0.0)
    runs = iter([RuntimeError("can't start new thread"), MemoryError(), None])

    async def keep_leases():
        fault = next(runs)
        if fault is not None:
            raise fault

    asyncio.run(kept_going(keep_leases))
    assert next(runs, "none is left") == "none is left"
    faults = [record.exc_info[0] for record in caplog.records]
    assert faults == [RuntimeError, MemoryError]
    assert "keep_leases" in caplog.records[0].work


def test_work_that_is_cancelled_stays_so():
    async def cancelled():
        task = asyncio.create_task(kept_going(lambda: asyncio.sleep(60)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task}, timeout=5)
        return task.cancelled()

    assert asyncio.run(cancelled())


def test_streams_hear_of_the_next_look_though_one_failed(monkeypatch):
    monkeypatch.setattr(event_watch, "LOOK_SECONDS", 0.001)
    looks = iter([RuntimeError("can't start new thread"), {"job": 7}])

    def count_events(_jobs):
        found = next(looks, {"job": 7})
        if isinstance(found, Exception):
            raise found
        return found

    async def watched():
        watch = EventWatch(count_events)
        with watch.watching("job"):
            return [await asyncio.wait_for(watch.has_more("job", 6), 5) for _ in range(3)][-1]

    assert asyncio.run(watched())
