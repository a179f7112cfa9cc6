"""The wall clock of a running service jumps by days: a real process, whose clock libfaketime turns.

Requests carry no time, so what could break is the service's own: leases, the order of the queue, events.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.api.workers import Life
from tests.databases import DATABASES, empty_database
from tests.serving import Serving, start_service

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
LOST_AFTER_SECONDS = 2.0
EVERY_SECONDS = 0.4
"""Between requests, each of which looks at the clock 400 times: under libfaketime, at its file."""
PATIENT = {"TIGHTFIT_HEARTBEAT_SECONDS": "0.2", "TIGHTFIT_LOST_AFTER_SECONDS": str(LOST_AFTER_SECONDS)}

pytestmark = pytest.mark.skipif(not LIBRARIES, reason="needs libfaketime")


class Clock:
    """What a process that was started with `environ` takes for the time of day; other clocks stay true."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.jump(0)

    @property
    def environ(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",  # the times of files: faked, every import looks at the clock's file
        }

    def jump(self, days: int) -> None:
        """Be so many days off the true time from now on."""
        unfinished = self._file.with_suffix(".tmp")
        unfinished.write_text(f"{days:+d}d\n")
        unfinished.replace(self._file)


@pytest.fixture(scope="module")
def shared_clock(tmp_path_factory: pytest.TempPathFactory) -> Clock:
    return Clock(tmp_path_factory.mktemp("clock") / "clock")


@pytest.fixture(scope="module", params=DATABASES)
def service(
    request: pytest.FixtureRequest, shared_clock: Clock, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serving]:
    """One for all tests: under libfaketime a service takes twice as long to start."""
    folder = tmp_path_factory.mktemp("service")
    database_url = empty_database(request, folder)
    serving = start_service(folder, TIGHTFIT_DATABASE_URL=database_url, **PATIENT, **shared_clock.environ)
    yield serving
    serving.kill()


@pytest.fixture
def clock(shared_clock: Clock) -> Clock:
    """Right before each test."""
    shared_clock.jump(0)
    return shared_clock


@pytest.mark.parametrize("days", [400, -400])
def test_a_job_outlives_a_clock_that_jumps(service: Serving, clock: Clock, days: int) -> None:
    """Its attempt stays the current one before and after the keeper has looked, and its report is accepted;
    a job that came before the jump is not overtaken by one that came after it
    """
    life, waiting = Life(f"jump{days}", service), Life(f"waiting{days}", service)
    for step in (life.submit, life.register, life.claim, life.open, life.beat, waiting.submit):
        assert step().is_success
    clock.jump(days)
    late = Life(f"late{days}", service)
    assert late.submit().is_success
    begun = time.monotonic()
    while time.monotonic() - begun < 2 * LOST_AFTER_SECONDS:
        assert life.beat().is_success
        time.sleep(EVERY_SECONDS)
    assert (life.read()["state"], life.read()["attempt"]) == ("running", 1)
    assert abs(_days_off(late)) > 300, "the service's clock did not jump"
    assert life.report().is_success
    assert life.read()["state"] == "succeeded"
    for expected in (waiting, late):
        assert life.claim().json()["job"]["id"] == expected.job_id
        assert _cancel(expected) == "cancelled"


def test_a_silent_worker_is_lost_in_time_whatever_the_clock_says(service: Serving, clock: Clock) -> None:
    """A clock that went back by a year gives nobody a year more"""
    life = Life("silent", service)
    for step in (life.submit, life.register, life.claim, life.open, life.beat):
        assert step().is_success
    clock.jump(-400)
    deadline = time.monotonic() + 20
    while life.read()["state"] != "queued":
        assert time.monotonic() < deadline, life.read()
        time.sleep(EVERY_SECONDS)
    assert _cancel(life) == "cancelled"


def _cancel(life: Life) -> str:
    """The state of the job then: it is in no later test's way."""
    return life.send("POST", f"/v1/jobs/{life.job_id}/cancel", None).json()["state"]


def _days_off(life: Life) -> float:
    created = datetime.fromisoformat(life.read()["created_at"])
    return (created.timestamp() - time.time()) / 86_400
