"""`tightfit export measurements`: what workers measured, as CSV or Parquet, straight from the database."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from planner_service.cli.kept_database import require_database
from planner_service.settings import InvalidSetting, Settings

STANDARD_OUTPUT = Path("-")

_DESCRIPTION = (
    "Write every measurement of the service's database, the oldest first. The database is found as "
    "`tightfit serve` finds it; the service may run meanwhile."
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser("export", help="write measurements to a file", description=_DESCRIPTION)
    parser.add_argument("what", choices=("measurements",), help="what to write")
    parser.add_argument("--format", choices=("csv", "parquet"), default="csv", help="csv, or parquet (csv)")
    parser.add_argument("--output", type=Path, help="the file to write; - or nothing: standard output (csv)")
    parser.add_argument(
        "--data-dir", type=Path, help="folder of the service's files (TIGHTFIT_DATA_DIR, or tightfit-data)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export. Exit status 2, with one line, when there is no database or the file cannot be written."""
    # The database's library loads here, so that the other commands need not wait for it.
    from planner_service.store import DatabaseUnavailable, open_database
    from planner_service.store.export import ParquetNeeded, write_csv, write_parquet

    try:
        settings = Settings.from_environ(os.environ, data_dir=args.data_dir)
        require_database(settings)
        engine = open_database(settings.store_url, limits=False)  # a pager may take an hour for a page
    except (InvalidSetting, DatabaseUnavailable, FileNotFoundError) as error:
        return _refuse(error)
    output = None if args.output == STANDARD_OUTPUT else args.output
    try:
        if args.format == "parquet":
            if output is None:
                return _refuse(ValueError("--format parquet needs --output FILE"))
            count = write_parquet(engine, output)
        elif output is None:
            count = write_csv(engine, sys.stdout)
        else:
            with output.open("w", encoding="utf-8", newline="") as file:
                count = write_csv(engine, file)
    except (ParquetNeeded, OSError) as error:
        return _refuse(error)
    finally:
        engine.dispose()
    print(f"{count} measurements", file=sys.stderr)
    return 0


def _refuse(error: Exception) -> int:
    print(f"tightfit export: {error}", file=sys.stderr)
    return 2
