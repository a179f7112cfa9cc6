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
from tests.serving import Serving, start_service

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
LOST_AFTER_SECONDS = 2.0
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
        }

    def jump(self, days: int) -> None:
        """Be so many days off the true time from now on."""
        unfinished = self._file.with_suffix(".tmp")
        unfinished.write_text(f"{days:+d}d\n")
        unfinished.replace(self._file)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path / "clock")


@pytest.fixture
def service(clock: Clock, database_url: str, tmp_path: Path) -> Iterator[Serving]:
    serving = start_service(tmp_path, TIGHTFIT_DATABASE_URL=database_url, **PATIENT, **clock.environ)
    yield serving
    serving.kill()


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
        time.sleep(0.2)
    assert (life.read()["state"], life.read()["attempt"]) == ("running", 1)
    assert abs(_days_off(late)) > 300, "the service's clock did not jump"
    assert life.report().is_success
    assert life.read()["state"] == "succeeded"
    for expected in (waiting, late):
        assert life.claim().json()["job"]["id"] == expected.job_id


def test_a_silent_worker_is_lost_in_time_whatever_the_clock_says(service: Serving, clock: Clock) -> None:
    """A clock that went back by a year gives nobody a year more"""
    life = Life("silent", service)
    for step in (life.submit, life.register, life.claim, life.open, life.beat):
        assert step().is_success
    clock.jump(-400)
    deadline = time.monotonic() + 20
    while life.read()["state"] != "queued":
        assert time.monotonic() < deadline, life.read()
        time.sleep(0.1)


def _days_off(life: Life) -> float:
    created = datetime.fromisoformat(life.read()["created_at"])
    return (created.timestamp() - time.time()) / 86_400
