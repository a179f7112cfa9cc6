"""`tightfit keys`: make, list and revoke API keys, straight in the database."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from planner_service.cli.kept_database import require_database
from planner_service.cli.tables import table
from planner_service.settings import SECONDS_PER_DAY, InvalidSetting, Settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from planner_service.security import ApiKey

SCOPES = ("read", "plan", "submit", "worker", "admin")
MAXIMUM_DAYS = 36_500
"""A hundred years."""
_DESCRIPTION = (
    "API keys for a service that listens on more than loopback. The database is found as `tightfit serve` "
    "finds it; the service may run meanwhile and takes notice within five seconds."
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser("keys", help="make, list and revoke API keys", description=_DESCRIPTION)
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    create = _action(actions, "create", _create, "make a key and print it, once")
    create.add_argument("name", help="whose it is: letters, digits, dots, dashes and underscores")
    create.add_argument(
        "--scope", action="append", choices=SCOPES, required=True, help="what it is good for; give again"
    )
    create.add_argument("--days", type=_days, help="it expires after so many days (never)")
    _action(actions, "list", _list, "all keys, without their secrets")
    _action(actions, "revoke", _revoke, "make a key worthless").add_argument("id", help="as `list` shows it")


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = 0.0
    if not 0 < days <= MAXIMUM_DAYS:  # a key that has expired already, or that no calendar can tell
        raise argparse.ArgumentTypeError(f"{text!r}: give a number above 0, at most {MAXIMUM_DAYS}")
    return days


Command = Callable[["Engine", argparse.Namespace], int]


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str, command: Command, meaning: str
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=meaning, description=f"{meaning[0].upper()}{meaning[1:]}.")
    parser.add_argument(
        "--data-dir", type=Path, help="folder of the service's files (TIGHTFIT_DATA_DIR, or tightfit-data)"
    )
    parser.set_defaults(run=partial(_run, command))
    return parser


def _run(command: Command, args: argparse.Namespace) -> int:
    """Exit status 2, with one line, when there is no database or the name is none."""
    from planner_service.security import InvalidKeyName
    from planner_service.store import DatabaseUnavailable, open_database

    try:
        settings = Settings.from_environ(os.environ, data_dir=args.data_dir)
        if command is not _create:  # which may come before the service's first start
            require_database(settings)
        engine = open_database(settings.store_url)
    except (InvalidSetting, DatabaseUnavailable, FileNotFoundError) as error:
        return _refuse(error)
    try:
        return command(engine, args)
    except InvalidKeyName as error:
        return _refuse(error)
    finally:
        engine.dispose()


def _create(engine: Engine, args: argparse.Namespace) -> int:
    from planner_service.security import new_api_key, scopes_of
    from planner_service.store import KeyStore

    now = time.time()
    expires_at = None if args.days is None else now + args.days * SECONDS_PER_DAY
    text, key = new_api_key(args.name, scopes_of(args.scope), now=now, expires_at=expires_at)
    KeyStore(engine).add(key)
    _write_down(engine, "keys_create", key)
    print(text)
    print(f"key {key.id} of {key.name}: this is the only time that it is shown", file=sys.stderr)
    return 0


def _list(engine: Engine, _: argparse.Namespace) -> int:
    from planner_service.store import KeyStore

    head = ("key", "name", "scopes", "made", "expires", "revoked")
    print(table([head, *map(_row, KeyStore(engine).all())]))
    return 0


def _row(key: ApiKey) -> tuple[str, ...]:
    times = map(_day, (key.created_at, key.expires_at, key.revoked_at))
    return (key.id, key.name, " ".join(sorted(key.scopes)), *times)


def _day(at: float | None) -> str:
    return "" if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}"


def _revoke(engine: Engine, args: argparse.Namespace) -> int:
    from planner_service.store import KeyStore

    key = KeyStore(engine).revoke(args.id)
    if key is None:
        return _refuse(ValueError(f"no key has the id {args.id!r}: `tightfit keys list` shows them"))
    _write_down(engine, "keys_revoke", key)
    print(f"key {key.id} of {key.name} is revoked", file=sys.stderr)
    return 0


def _write_down(engine: Engine, action: str, key: ApiKey) -> None:
    from planner_service.store import AuditStore

    subject = f"{key.id} {key.name}: {' '.join(sorted(key.scopes))}"
    AuditStore(engine).add(caller=f"shell:{getpass.getuser()}", action=action, subject=subject)


def _refuse(error: Exception) -> int:
    print(f"tightfit keys: {error}", file=sys.stderr)
    return 2
