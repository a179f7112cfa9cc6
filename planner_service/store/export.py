"""Measurements as a table for other programs: CSV from the standard library, Parquet with pyarrow.

Columns are the fields of the wire, one a field; what is no number and no text (losses, the gradient
check, further fields of the report) is JSON in its own column.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from sqlalchemy import Engine, select

from planner_service.store.tables import measurements

_PLAIN = {
    "id": str,
    "received_at": str,
    "job": str,
    "plan_id": str,
    "device": str,
    "torch": str,
    "budget_bytes": int,
    "projected_peak_bytes": int,
    "measured_peak_bytes": int,
    "seconds_per_iteration": float,
    "iterations": int,
}
_JSON = ("losses", "gradient_check", "further")
COLUMNS = (*_PLAIN, *_JSON)
ROWS_AT_A_TIME = 1000


class ParquetNeeded(Exception):
    """Parquet is written by pyarrow, which is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "writing Parquet needs pyarrow: pip install 'tightfit[parquet]', or use --format csv"
        )


def exported_rows(engine: Engine) -> Iterator[dict[str, Any]]:
    """Every measurement, the oldest first, as the values of COLUMNS; in constant memory."""
    query = select(measurements.c.id, measurements.c.received_at, measurements.c.report)
    options = {"yield_per": ROWS_AT_A_TIME}
    with engine.connect().execution_options(**options) as connection:
        for row in connection.execute(query.order_by(measurements.c.number)):
            yield _exported(row.id, row.received_at, json.loads(row.report))


def _exported(measurement_id: str, received_at: float, report: dict[str, Any]) -> dict[str, Any]:
    at = datetime.fromtimestamp(received_at, UTC).isoformat()
    row: dict[str, Any] = {"id": measurement_id, "received_at": at}
    for name in COLUMNS[2:-1]:
        value = report.pop(name, None)
        row[name] = json.dumps(value) if name in _JSON and value is not None else value
    row["further"] = json.dumps(report) if report else None
    return row


def write_csv(engine: Engine, file: TextIO) -> int:
    """Write all measurements with a header line; return how many they were."""
    writer = csv.DictWriter(file, COLUMNS)
    writer.writeheader()
    count = 0
    for count, row in enumerate(exported_rows(engine), start=1):  # noqa: B007 - counted
        writer.writerow(row)
    return count


def write_parquet(engine: Engine, path: Path) -> int:
    """Write all measurements to `path`; return how many they were. Raises ParquetNeeded."""
    try:
        import pyarrow
        from pyarrow.parquet import ParquetWriter
    except ImportError as error:
        raise ParquetNeeded from error
    types = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64()}
    schema = pyarrow.schema([(name, types[_PLAIN.get(name, str)]) for name in COLUMNS])
    count = 0
    with ParquetWriter(path, schema) as writer:
        batch: list[dict[str, Any]] = []
        for row in exported_rows(engine):
            batch.append(row)
            count += 1
            if len(batch) == ROWS_AT_A_TIME:
                writer.write_table(pyarrow.Table.from_pylist(batch, schema))
                batch = []
        writer.write_table(pyarrow.Table.from_pylist(batch, schema))
    return count
