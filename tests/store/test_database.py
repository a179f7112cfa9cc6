"""A database is made, migrated up and down, and refused with a clear message."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from planner_service.store import DatabaseUnavailable, open_database
from planner_service.store.database import MIGRATIONS, NEWEST_REVISION, REVISIONS, connect, migrate
from planner_service.store.tables import metadata
from tests.store.desk import Desk


def test_the_migrations_make_exactly_the_tables_that_the_queries_use(engine):
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_the_schema_goes_down_to_nothing_and_up_again(engine):
    migrate(engine, "base")
    assert inspect(engine).get_table_names() == ["alembic_version"]
    migrate(engine)
    assert set(metadata.tables) < set(inspect(engine).get_table_names())


def test_the_schema_goes_back_one_step_and_keeps_what_was_there_before(engine):
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO plans VALUES ('a', 'b', 'c', 0)"))
    migrate(engine, "0001")
    assert "jobs" not in inspect(engine).get_table_names()
    migrate(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT id FROM plans")).scalars().all() == ["a"]
        assert connection.execute(text("SELECT count(*) FROM jobs")).scalar() == 0


def test_jobs_survive_the_step_to_and_from_exhausted_budgets(engine):
    """A column that is added and dropped in place, beside jobs that are there already"""
    desk = Desk(engine)
    desk.node()
    job = desk.submit()
    desk.report(desk.take(), "oom", budget_bytes=1000)
    migrate(engine, "0005")
    assert "exhausted_bytes" not in {column["name"] for column in inspect(engine).get_columns("jobs")}
    migrate(engine)
    kept = desk.jobs.get(job.id)
    assert (kept.state, kept.reason, kept.failures) == ("queued", "oom", 1)
    assert desk.take().job.id == job.id


def test_opening_twice_keeps_what_is_there(engine, url):
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO plans VALUES ('a', 'b', 'c', 0)"))
    again = open_database(url)
    with again.connect() as connection:
        assert connection.execute(text("SELECT id FROM plans")).scalars().all() == ["a"]
    again.dispose()


def test_services_that_start_together_on_a_new_file_make_the_tables_once(url):
    failures: list[Exception] = []

    def start() -> None:
        try:
            open_database(url).dispose()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_new_file_that_another_process_is_writing_to_is_waited_for(tmp_path):
    """SQLite itself says "locked" at once where a file is to be written ahead, whatever its timeout"""
    first = sqlite3.connect(tmp_path / "new.sqlite3", isolation_level=None, check_same_thread=False)
    first.execute("BEGIN IMMEDIATE")
    threading.Timer(0.2, lambda: first.execute("COMMIT")).start()
    engine = open_database(f"sqlite:///{tmp_path}/new.sqlite3")
    assert inspect(engine).has_table("plans")
    engine.dispose()
    first.close()


def test_readers_do_not_wait_for_the_writer_and_commits_reach_the_disk(sqlite_url):
    engine = open_database(sqlite_url)
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2  # FULL
    engine.dispose()


@pytest.mark.parametrize("url", ["nonsense", "nosuchdatabase://host/name"])
def test_a_wrong_url_is_refused_by_name(url):
    with pytest.raises(DatabaseUnavailable, match=url):
        open_database(url)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DatabaseUnavailable, match=r"file/data"):
        open_database(f"sqlite:///{tmp_path / 'file' / 'data' / 'd.sqlite3'}")


def test_a_file_that_is_no_database_is_refused(tmp_path: Path):
    path = tmp_path / "d.sqlite3"
    path.write_text("not a database at all, and long enough to have a header" * 20)
    with pytest.raises(DatabaseUnavailable, match=r"d\.sqlite3"):
        open_database(f"sqlite:///{path}")


def test_a_database_of_a_newer_version_is_refused_and_left_as_it_is(engine, url):
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseUnavailable, match=f"schema is 9999.* none after {NEWEST_REVISION}"):
        open_database(url)
    assert "jobs" in inspect(engine).get_table_names()


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://user:secret@host/name",
        "postgresql+psycopg://user:pass@secret@127.0.0.1:1/name",
        "postgresql+psycopg://127.0.0.1:1/name?user=me&password=secret&sslpassword=secret",
    ],
)
def test_a_password_does_not_reach_the_message(url):
    with pytest.raises(DatabaseUnavailable) as refused:
        open_database(url)
    assert "secret" not in str(refused.value)
    assert "/name" in str(refused.value)


def test_a_connection_without_migration_has_no_tables(url):
    engine = connect(url)
    assert inspect(engine).get_table_names() == []
    engine.dispose()


def test_the_newest_revision_that_the_service_names_is_the_last_of_the_migrations():
    scripts = ScriptDirectory(str(MIGRATIONS))
    assert scripts.get_current_head() == NEWEST_REVISION
    assert {script.revision for script in scripts.walk_revisions()} == REVISIONS
