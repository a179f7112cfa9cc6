"""PostgreSQL: transactions whose service stopped, answers to COMMIT that never came, failovers."""

from __future__ import annotations

import json

import psycopg
import pytest
from sqlalchemy import Engine, PoolProxiedConnection, text
from sqlalchemy.exc import DBAPIError
from starlette.requests import Request

from planner_service.api.handlers import storage_problem_response
from planner_service.store import open_database, postgresql
from planner_service.store.job_records import lock_job
from tests.databases import PostgresServer
from tests.store.desk import Desk


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.create_database()


def problem_of(error: Exception) -> str:
    """What whoever asked is told of it."""
    request = Request({"type": "http", "tightfit.request_id": "1", "headers": []})
    answer = storage_problem_response(request, error)
    assert answer.status_code == 503
    return str(json.loads(bytes(answer.body))["type"]).rpartition("/")[2]


def test_a_service_that_stops_within_a_transaction_holds_its_job_for_seconds_not_for_ever(
    url: str, monkeypatch
):
    monkeypatch.setattr(postgresql, "IDLE_SECONDS", 1)
    stopped, others = open_database(url), open_database(url)
    desk = Desk(others)
    desk.node()
    attempt = desk.take() if desk.submit() else None
    assert attempt is not None
    with stopped.connect() as connection, connection.begin() as transaction:
        lock_job(connection, attempt.job.id)
        (lease,) = desk.queue.leases()
        assert desk.queue.expire(lease) is False  # not waited for: others may be silent for good
        assert desk.beat(attempt, iteration=1) is False
        with pytest.raises(DBAPIError) as lost:
            connection.execute(text("SELECT 1"))
        transaction.close()
    assert problem_of(lost.value) == "storage-unavailable"
    stopped.dispose(), others.dispose()


def test_a_job_whose_commit_was_not_answered_is_not_said_to_be_lost(url: str, monkeypatch):
    engine = open_database(url)

    def commit_unheard(connection: PoolProxiedConnection) -> None:
        connection.commit()
        connection.dbapi_connection.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    with monkeypatch.context() as patched:
        patched.setattr(engine.dialect, "do_commit", commit_unheard)
        with pytest.raises(DBAPIError) as lost:
            Desk(engine).submit()
    assert len(Desk(engine).jobs.page(limit=9).jobs) == 1
    assert problem_of(lost.value) == "storage-stalled"
    engine.dispose()


def test_a_server_that_takes_no_writes_any_more_is_left_for_the_one_that_does(url: str):
    """After a failover the former primary answers on, and every connection of the pool leads to it"""
    engine = open_database(url)
    desk = Desk(engine)
    with engine.connect() as connection:
        connection.execute(text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"))
        connection.commit()
    with pytest.raises(DBAPIError) as lost:
        desk.submit()
    assert problem_of(lost.value) == "storage-unavailable"
    assert desk.submit().state == "queued"
    engine.dispose()


def test_an_export_may_be_read_as_slowly_as_somebody_likes(url: str):
    engine: Engine = open_database(url, limits=False)
    with engine.connect() as connection:
        assert connection.execute(text("SHOW idle_in_transaction_session_timeout")).scalar() == "0"
    engine.dispose()
