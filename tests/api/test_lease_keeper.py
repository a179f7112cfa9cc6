"""The keeper of leases on a real database, with the clock in the test's hand."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text

from planner_service.api.jobs.lease_keeper import LeaseKeeper
from planner_service.store import open_database
from tests.store.desk import Desk


@pytest.fixture
def engine(database_url):
    engine = open_database(database_url)
    yield engine
    engine.dispose()


def keeper(desk: Desk) -> LeaseKeeper:
    return LeaseKeeper(desk.queue, lease_seconds=60, lost_after_seconds=180)


def watch(keeping: LeaseKeeper, *, start: float, seconds: float) -> int:
    """Leases ended by looking every five seconds."""
    return sum(keeping.look(start + 5 * look) for look in range(int(seconds // 5) + 1))


def test_attempts_that_were_lost_are_counted_and_jobs_that_nobody_began_are_not(engine):
    desk, lost = Desk(engine), []
    desk.node()
    desk.submit(), desk.submit()
    desk.take()
    desk.claim()
    keeping = LeaseKeeper(
        desk.queue, lease_seconds=60, lost_after_seconds=180, on_lost_attempt=lambda: lost.append(1)
    )
    assert watch(keeping, start=0, seconds=200) == 2
    assert len(lost) == 1


def test_assigned_jobs_go_back_after_a_minute_running_ones_after_three(engine):
    desk = Desk(engine)
    desk.node()
    running, assigned = desk.submit().id, desk.submit().id
    desk.take()
    desk.claim()
    keeping = keeper(desk)
    assert watch(keeping, start=0, seconds=55) == 0
    assert keeping.look(60) == 1
    assert (desk.jobs.get(assigned).state, desk.jobs.get(running).state) == ("queued", "running")
    assert watch(keeping, start=65, seconds=110) == 0
    assert keeping.look(180) == 1
    assert desk.jobs.get(running).reason == "node_lost"


def test_heartbeats_keep_a_job_however_the_clock_jumps(engine):
    desk = Desk(engine)
    desk.node()
    job = desk.submit()
    attempt = desk.take()
    keeping = keeper(desk)
    now = 1000.0
    for jump in (0, 5, 1e9, -2e9, 86_400, 5, 1e6, 3600, -1, 1e9) * 3:
        now += jump
        assert keeping.look(now) == 0
        desk.beat(attempt)
    assert desk.jobs.get(job.id).state == "running"


def test_two_keepers_end_a_lease_once(engine):
    desk = Desk(engine)
    desk.node()
    job = desk.submit()
    desk.claim()
    keepers = [keeper(desk), keeper(desk)]
    for look in range(12):
        assert [keeping.look(5 * look) for keeping in keepers] == [0, 0]
    assert sorted(keeping.look(60) for keeping in keepers) == [0, 1]
    assert desk.told(job.id)[-1] == ("state", "queued")


def test_a_database_that_does_not_answer_does_not_end_the_keeper(engine, monkeypatch):
    desk = Desk(engine)
    keeping = keeper(desk)
    keeping.look_seconds = 0.01
    looks = []

    def look(now_seconds: float) -> int:
        looks.append(now_seconds)
        with engine.connect() as connection:
            connection.execute(text("SELECT * FROM nothing"))
        return 0

    monkeypatch.setattr(keeping, "look", look)

    async def run_a_while() -> None:
        task = asyncio.create_task(keeping.run())
        while len(looks) < 3 and not task.done():
            await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(asyncio.wait_for(run_a_while(), 20))
    assert len(looks) >= 3
