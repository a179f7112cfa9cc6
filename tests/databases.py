"""Both databases for tests: SQLite in a file, and a private PostgreSQL server on a unix socket.

`database_url` gives every test an empty database of either kind; PostgreSQL is skipped, with a reason,
where its server is not installed (Debian: `apt-get install postgresql`).
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SERVER_FOLDERS = "usr/lib/postgresql/*/bin"
USER = "postgres"
"""PostgreSQL refuses to run as root; Debian's package makes this user."""

START_SECONDS = 60.0
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None

_counter = itertools.count(1)


class PostgresServer:
    """A PostgreSQL server of our own: its files in one folder, reached by a socket in it."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self.folder = folder
        self.has_own_disk = False
        """Its files are on a small file system of their own."""
        self._data = folder / "data"

    def make(self) -> None:
        """Write the files of an empty server that keeps its promises but not its files after a test."""
        self._run("initdb", "-D", str(self._data), "-U", USER, "--auth=trust", "--no-sync", "--encoding=UTF8")
        with (self._data / "postgresql.conf").open("a") as settings:
            settings.write(f"listen_addresses=''\nunix_socket_directories='{self.folder}'\n")
            # What a killed process wrote is in the operating system; only a power cut needs fsync.
            settings.write("shared_buffers=16MB\nmax_connections=60\nfsync=off\n")

    def start(self) -> None:
        """Start it and wait until it answers. It ends with this process, however that one ends."""
        command = [str(self._programs / "postgres"), "-D", str(self._data)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd="/",
                preexec_fn=_end_with_parent,  # noqa: PLW1509
                **_as_user(),
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(RuntimeError):
                self._run("pg_isready", "-h", str(self.folder), "-q")
                return
            time.sleep(0.05)
        raise RuntimeError(f"PostgreSQL did not start: {(self.folder / 'log').read_text()[-2000:]}")

    def stop(self, mode: str = "fast") -> None:
        """Stop it: `fast` with a goodbye to every connection, `immediate` as a crash would."""
        self._run("pg_ctl", "-D", str(self._data), "-m", mode, "-w", "stop")
        self._process.wait(START_SECONDS)

    def process_ids(self) -> list[int]:
        """The server's process, and those that it has started."""
        first = self._process.pid
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        return [first, *map(int, children)]

    def create_database(self) -> str:
        """The SQLAlchemy URL of what is, to whoever uses it, a new and empty database.

        It is a schema of its own, made in a millisecond; a new database would be a copy of 300 files.
        """
        import psycopg

        name = f"tightfit_{next(_counter)}"
        with psycopg.connect(host=str(self.folder), user=USER, dbname=USER, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}")  # type: ignore[arg-type]
        return f"postgresql+psycopg://{USER}@/{USER}?host={self.folder}&options=-csearch_path%3D{name}"

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        # pg_ctl's server inherits the output; a pipe would never end.
        with tempfile.TemporaryFile() as said:
            done = subprocess.run(command, stdout=said, stderr=said, cwd="/", **_as_user())
            said.seek(0)
            if done.returncode:
                raise RuntimeError(f"{program}: {said.read().decode(errors='replace')[-2000:]}")


def _as_user() -> dict[str, Any]:
    """How a program is started that refuses to run as root."""
    return {"user": USER, "group": USER, "extra_groups": []} if os.geteuid() == 0 else {}


def _end_with_parent() -> None:
    """Make the system send this new process SIGQUIT (at once, no goodbye) when its parent has died."""
    if _LIBC is not None:
        _LIBC.prctl(1, signal.SIGQUIT)  # PR_SET_PDEATHSIG


def server_programs() -> Path | None:
    """The folder of PostgreSQL's server programs, the newest version's."""
    folders = sorted(Path("/").glob(SERVER_FOLDERS), key=lambda path: float(path.parent.name))
    if folders:
        return folders[-1]
    found = shutil.which("initdb")
    return Path(found).parent if found else None


def missing_for_postgres() -> str | None:
    """Why PostgreSQL cannot be tested here, or None."""
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "needs the extra `postgresql` (psycopg)"
    if server_programs() is None:
        return "needs PostgreSQL's server programs (Debian: apt-get install postgresql)"
    if os.geteuid() == 0 and USER not in {entry.pw_name for entry in pwd.getpwall()}:
        return f"root needs the user {USER!r} to run PostgreSQL as"
    return None


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for the whole test run; tests that stop it start their own with `own_postgres`."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server that the test may stop and start, and whose disk it may fill where mounting is allowed."""
    with running_postgres(own_disk=True) as server:
        yield server


class running_postgres:  # noqa: N801 - a context manager, used like a function
    """A started server in a temporary folder that goes with it; skips the test where there can be none."""

    def __init__(self, *, own_disk: bool = False) -> None:
        self._own_disk = own_disk

    def __enter__(self) -> PostgresServer:
        if reason := missing_for_postgres():
            pytest.skip(f"PostgreSQL {reason}")
        programs = server_programs()
        assert programs is not None
        # Not pytest's own: a socket's path has at most 107 characters, and root's folders are closed.
        self._folder = Path(tempfile.mkdtemp(prefix="tf-pg-"))
        is_mounted = self._own_disk and _mount_small_disk(self._folder)
        if os.geteuid() == 0:
            shutil.chown(self._folder, USER, USER)
        self.server = PostgresServer(programs, self._folder)
        self.server.has_own_disk = is_mounted
        self.server.make()
        self.server.start()
        return self.server

    def __exit__(self, *_: object) -> None:
        try:
            self.server.stop("immediate")
        except RuntimeError as error:
            if "no server running" not in str(error) and "PID file" not in str(error):
                raise
        finally:
            if self.server.has_own_disk:
                subprocess.run(["umount", "--lazy", str(self._folder)], check=True)
            shutil.rmtree(self._folder, ignore_errors=True)


def _mount_small_disk(folder: Path) -> bool:
    """Put a file system of 128 MiB there; False where this machine does not let us."""
    command = ["mount", "-t", "tmpfs", "-o", "size=128m", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


DATABASES = ("sqlite", "postgresql")


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of both kinds in turn."""
    return empty_database(request, tmp_path)


def empty_database(request: pytest.FixtureRequest, folder: Path) -> str:
    """The URL of an empty database of the kind `request.param`; SQLite's file is below `folder`."""
    if request.param == "sqlite":
        return f"sqlite:///{folder / 'data' / 'tightfit.sqlite3'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.create_database()
