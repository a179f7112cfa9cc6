"""Connections to PostgreSQL that are not waited for without end.

A server that hangs still holds its connections open, and its kernel goes on acknowledging what is sent: no
keep-alive notices. So the client counts by itself: each operation has a limit, after which its connection is
closed and the thread that used it is free again.
"""

from __future__ import annotations

from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, ExceptionContext

CONNECT_SECONDS = 5
STATEMENT_SECONDS = 30
"""The server stops a statement itself after this: a batch that retention deletes takes a few."""
IDLE_SECONDS = 10
"""The server ends a transaction in which nothing is asked for so long: a service that was stopped, or whose
machine is gone, would hold its rows against all others, hours long.
"""
STALL_SECONDS = 40.0
"""Between a question to the server and its whole answer; above STATEMENT_SECONDS, whose error is better."""
POOL_SECONDS = 5.0
"""For a connection to become free."""

Answer = TypeVar("Answer")


class StallingConnection(psycopg.Connection[Any]):
    """A connection that is closed when the server does not answer within STALL_SECONDS."""

    def wait(self, gen: PQGen[Answer], interval: float = 0.1, timeout: float | None = None) -> Answer:
        """What the operation `gen` gives. Raises psycopg.OperationalError after the limit."""
        try:
            return super().wait(gen, interval, STALL_SECONDS if timeout is None else timeout)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:  # nobody knows what it is at
                self.pgconn.finish()
            raise


def postgresql_engine(url: URL, *, limits: bool) -> Engine:
    """An engine on a PostgreSQL database; without `limits` for what may take its time, such as migrations."""
    if not limits:
        return create_engine(url, connect_args={"connect_timeout": CONNECT_SECONDS})
    engine = create_engine(
        url,
        pool_pre_ping=True,
        pool_timeout=POOL_SECONDS,
        connect_args={
            "connect_timeout": CONNECT_SECONDS,
            # A host that is gone altogether is noticed by the kernel, in milliseconds.
            "tcp_user_timeout": int(STALL_SECONDS * 1000),
        },
    )
    event.listen(engine, "do_connect", _connect)
    event.listen(engine, "connect", _limit_statements)
    event.listen(engine, "handle_error", _leave_standby)
    return engine


def _connect(_dialect: Any, _record: Any, arguments: Any, options: Any) -> StallingConnection:
    return StallingConnection.connect(*arguments, **options)


def _leave_standby(context: ExceptionContext) -> None:
    """A server that takes no writes is no longer the primary: its connections, which still answer, are of no
    use, and new ones may find the one that is.
    """
    if isinstance(context.original_exception, psycopg.errors.ReadOnlySqlTransaction):
        context.is_disconnect = True


def _limit_statements(connection: Any, _record: object) -> None:
    connection.execute(f"SET statement_timeout = '{STATEMENT_SECONDS}s'")
    connection.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'")
    connection.commit()
