"""Opening the database: its connections, its durability, its schema brought up to date."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

MIGRATIONS = Path(__file__).parent / "migrations"
NEWEST_REVISION = "0006"
"""The last of the migrations; named here, so that a database that is there already needs no Alembic."""
REVISIONS = {f"{number:04}" for number in range(1, int(NEWEST_REVISION) + 1)}
BUSY_SECONDS = 30
MIGRATION_LOCK = 0x7469676874666974
"""Any number that no other program locks in the same PostgreSQL database."""


_PASSWORD = re.compile(r"(?<=//)([^:/@?]*:).*(?=@)|([?&]\w*password=)[^&]*")
"""In a URL: before the last @, should one of the password's own not be written as %40; or in the query."""


class DatabaseUnavailable(Exception):
    """The database cannot be opened; the message names it without its password."""

    def __init__(self, url: str, reason: object) -> None:
        self.url = _PASSWORD.sub(lambda found: f"{found[1] or found[2]}***", url)
        self.may_pass = isinstance(reason, OperationalError)
        """It does not answer, or is full or locked: it may be there later."""
        first_line = str(reason).partition("\n")[0]
        super().__init__(f"cannot open the database {self.url}: {first_line}")


def open_database(url: str, *, limits: bool = True) -> Engine:
    """An engine on the database at `url`, its schema migrated to the newest version.

    `limits` are those of `connect`. A missing SQLite file is made, with its folder. Raises
    DatabaseUnavailable, for a newer schema than this version's too.
    """
    try:
        engine = connect(url, limits=limits)
        revision = schema_revision(engine) if inspect(engine).has_table("alembic_version") else None
        if revision is not None and revision not in REVISIONS:
            newer = f"its schema is {revision}; this version of tightfit knows none after {NEWEST_REVISION}"
            engine.dispose()
            raise DatabaseUnavailable(url, newer)
        if revision != NEWEST_REVISION:
            migrate_at(url)
    except (ArgumentError, DBAPIError, ImportError, OSError) as error:
        raise DatabaseUnavailable(url, error) from error
    return engine


def connect(url: str, *, limits: bool = True) -> Engine:
    """An engine on the database at `url`, whatever its schema; PostgreSQL's has time `limits` unless told."""
    target = make_url(url)
    if "@" in (target.host or ""):  # the rest of the password: no message must quote it as a host
        raise ArgumentError("write an @ within the password as %40")
    if target.drivername in ("postgresql", "postgresql+psycopg"):
        try:
            from planner_service.store.postgresql import postgresql_engine
        except ImportError as error:
            raise ImportError("it needs the extra: pip install 'tightfit[postgresql]'") from error
        return postgresql_engine(target.set(drivername="postgresql+psycopg"), limits=limits)
    if target.get_backend_name() != "sqlite":
        raise ArgumentError("give postgresql+psycopg://USER:PASSWORD@HOST/NAME, or sqlite:///FILE")
    if target.database:
        Path(target.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(target, connect_args={"timeout": BUSY_SECONDS})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver would begin transactions late and commit before DDL; `_begin_sqlite` does it instead.
    connection.isolation_level = None
    # Readers never wait for the writer; what was committed survives a power cut.
    _write_ahead(connection)
    connection.execute("PRAGMA synchronous = FULL")


def _write_ahead(connection: Any) -> None:
    """Have a file's changes written ahead. On a new file SQLite does not wait its time for another process
    that does the same: it is locked at once.
    """
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(0.01)


def _begin_sqlite(connection: Connection) -> None:
    kind = connection.get_execution_options().get("sqlite_begin", "")
    connection.exec_driver_sql(f"BEGIN {kind}")


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction that will write: committed at the end of the block, undone when it raises.

    SQLite takes the writers' lock at once, so that what the block reads stays true until it has
    written; with PostgreSQL the block locks the rows that it reads (`with_for_update`).
    """
    with engine.connect().execution_options(sqlite_begin="IMMEDIATE") as connection, connection.begin():
        yield connection


def schema_revision(engine: Engine) -> str | None:
    """The migration that the database is at."""
    with engine.connect() as connection:
        found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def migrate_at(url: str, revision: str = "head") -> None:
    """Bring the schema of the database at `url` to `revision`, which may take as long as it takes."""
    engine = connect(url, limits=False)
    try:
        migrate(engine, revision)
    finally:
        engine.dispose()


def migrate(engine: Engine, revision: str = "head") -> None:
    """Bring the schema to `revision`: up, or down to an older one."""
    from alembic import command  # a sixth of a second, which only a first start has to wait
    from alembic.config import Config

    # Two services that start on one new database must not both make the tables.
    with writing(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        config.attributes["connection"] = connection
        if revision == "head":
            command.upgrade(config, revision)
        else:
            command.downgrade(config, revision)
