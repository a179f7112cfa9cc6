"""Many watchers, one look at the database."""

from __future__ import annotations

import asyncio

from sqlalchemy.exc import OperationalError

from planner_service.api.errors import StorageStalled
from planner_service.api.jobs import event_watch as module
from planner_service.api.jobs.event_stream import event_stream
from planner_service.api.jobs.event_watch import EventWatch
from planner_service.jobs import UnknownJob
from planner_service.store import EventsAfter
from tests.store.desk import Desk


def test_six_hundred_watchers_ask_the_database_once_a_look(monkeypatch):
    """Each hears of its own job alone, and nobody is asked for once all have gone"""
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.02)
    looks = []

    def count_events(job_ids):
        looks.append(sorted(job_ids))
        return {job_id: 5 if job_id == "busy" and len(looks) > 2 else 1 for job_id in job_ids}

    async def watch_until_more(watch: EventWatch, job_id: str) -> int:
        with watch.watching(job_id):
            while not await watch.has_more(job_id, 1):
                pass
        return len(looks)

    async def scenario() -> None:
        watch = EventWatch(count_events)
        silent = [asyncio.create_task(watch_until_more(watch, f"job-{number}")) for number in range(600)]
        assert await asyncio.wait_for(watch_until_more(watch, "busy"), 10) == 3
        assert not any(task.done() for task in silent)
        for task in silent:
            task.cancel()
        await asyncio.gather(*silent, return_exceptions=True)
        await asyncio.sleep(0.1)
        before = len(looks)
        await asyncio.sleep(0.1)
        assert len(looks) == before <= 5

    asyncio.run(scenario())
    assert len(looks[0]) == 601


def test_watchers_stay_while_the_database_is_away(monkeypatch):
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    answers = iter([OperationalError("", {}, Exception()), OperationalError("", {}, Exception()), {"job": 2}])

    def count_events(_job_ids):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def scenario() -> bool:
        watch = EventWatch(count_events)
        watch._counts = {"job": 1}
        with watch.watching("job"):
            assert [await watch.has_more("job", 1) for _ in range(2)] == [False, False]
            return await watch.has_more("job", 1)

    assert asyncio.run(scenario())


def test_a_stream_outlasts_a_database_that_is_away_and_ends_in_good_order_when_its_job_is_forgotten():
    """Its answer has begun: an error would only break it off, and the log would blame the service"""
    answers = iter(
        [
            EventsAfter([(1, "state", b"{}")], is_over=False),
            OperationalError("", {}, Exception()),
            StorageStalled(),
            EventsAfter([(2, "progress", b"{}")], is_over=False),
            UnknownJob("job"),
        ]
    )

    def read_after(_number: int) -> EventsAfter:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def has_more(_number: int) -> bool:
        return True

    async def parts() -> list[bytes]:
        return [part async for part in event_stream(read_after, 0, lambda: False, has_more)]

    assert [part.partition(b"\n")[0] for part in asyncio.run(parts())] == [b"retry: 2000", b"id: 1", b"id: 2"]


def test_counts_are_those_of_the_events_that_are_read(tmp_path):
    from planner_service.store import open_database

    engine = open_database(f"sqlite:///{tmp_path / 'd.sqlite3'}")
    desk = Desk(engine)
    desk.node()
    first, second = desk.submit().id, desk.submit().id
    desk.take()
    assert desk.history.event_counts([first, second, "none"]) == {first: 3, second: 1}
    engine.dispose()
