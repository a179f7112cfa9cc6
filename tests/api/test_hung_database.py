"""A PostgreSQL that hangs (SIGSTOP) keeps its connections open and answers nothing."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.api.workers import HTTP, Life
from tests.databases import PostgresServer
from tests.serving import eventually, start_service


def _tell(process_id: int, sent: signal.Signals) -> None:
    """A server's process for one connection may be gone meanwhile."""
    with suppress(ProcessLookupError):
        os.kill(process_id, sent)


@contextmanager
def hung(server: PostgresServer) -> Iterator[None]:
    """Every process of the server is stopped, and goes on afterwards."""
    processes = server.process_ids()
    for process_id in processes:
        _tell(process_id, signal.SIGSTOP)
    try:
        yield
    finally:
        for process_id in processes:
            _tell(process_id, signal.SIGCONT)


def test_a_database_that_hangs_is_503_in_time_and_everything_goes_on_when_it_does(own_postgres, tmp_path):
    """More requests than there are threads: each is refused in time, and none is in the way afterwards"""
    service = start_service(tmp_path, TIGHTFIT_DATABASE_URL=own_postgres.create_database())
    try:
        life = Life("hung", service)
        for step in life.steps[:5]:
            assert step().is_success
        with hung(own_postgres):
            begin = time.monotonic()
            assert HTTP.get(f"{service.url}/readyz").status_code == 503
            assert HTTP.get(f"{service.url}/metrics").is_success  # all figures but those of jobs
            assert time.monotonic() - begin < 6
            begin = time.monotonic()
            answers = at_once(40, life.beat)
            assert time.monotonic() - begin < 15
            assert {answer.status_code for answer in answers} == {503}
            kinds = {answer.json()["type"].removeprefix("/problems/") for answer in answers}
            assert kinds <= {"storage-stalled", "storage-unavailable"}  # no answer; no connection free
            assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
            assert HTTP.get(f"{service.url}/healthz").is_success
        assert eventually(lambda: HTTP.get(f"{service.url}/readyz").is_success, 20)
        for step in life.steps[4:]:
            assert step().is_success
        assert life.read()["state"] == "succeeded"
    finally:
        service.kill()


def at_once(count, ask):
    """What `ask()` gives to that many threads."""
    found = []
    threads = [threading.Thread(target=lambda: found.append(ask())) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == count
    return found


def test_a_thread_that_waits_for_a_hung_server_is_free_again_after_the_limit(own_postgres, monkeypatch):
    from sqlalchemy import text
    from sqlalchemy.exc import OperationalError

    from planner_service.store import postgresql
    from planner_service.store.database import connect

    monkeypatch.setattr(postgresql, "STALL_SECONDS", 1.0)
    monkeypatch.setattr(postgresql, "CONNECT_SECONDS", 2)
    engine = connect(own_postgres.create_database())
    with engine.connect() as connection:
        assert connection.execute(text("SHOW statement_timeout")).scalar() == "30s"
    for _ in range(2):  # a connection of the pool, then a new one
        with hung(own_postgres):
            begin = time.monotonic()
            with pytest.raises(OperationalError), engine.connect() as connection:
                connection.execute(text("SELECT 1"))
            assert time.monotonic() - begin < 5
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
    engine.dispose()
