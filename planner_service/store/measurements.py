"""Measurements: reports of training runs, the columns that are asked for beside the whole report."""

from __future__ import annotations

import hashlib
import json
import time
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, select

from planner_service.contract import canonical_json
from planner_service.contract.measurements import Measurement, MeasurementPage, MeasurementReport
from planner_service.store.database import writing
from planner_service.store.pages import latest_rows
from planner_service.store.residuals import forget_residual, keep_residual
from planner_service.store.retention import delete_batch
from planner_service.store.tables import measurements
from planner_service.store.upsert import insert_into

_COLUMNS = (
    "job",
    "plan_id",
    "device",
    "torch",
    "budget_bytes",
    "projected_peak_bytes",
    "measured_peak_bytes",
    "seconds_per_iteration",
)
_READ = (measurements.c.number, measurements.c.id, measurements.c.received_at, measurements.c.report)


class MeasurementStore:
    """Measurements in the database. Every method is one transaction, committed before it returns."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, report: MeasurementReport) -> tuple[Measurement, bool]:
        """Keep `report`, once however often it is sent; return it and whether it is new."""
        with writing(self._engine) as connection:
            measurement_id, is_new = _insert(connection, report, time.time())
        kept = self.get(measurement_id)
        if kept is None:
            raise LookupError(f"measurement {measurement_id} vanished while it was stored")
        return kept, is_new

    def get(self, measurement_id: str) -> Measurement | None:
        """The measurement, or None."""
        query = select(*_READ).where(measurements.c.id == measurement_id)
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _measurement(row)

    def forget(self, measurement_id: str) -> bool:
        """Delete the measurement, and what it calibrates; whether there was either.

        Retention deletes measurements only: what they taught stays, until it is forgotten by their id.
        """
        is_it = measurements.c.id == measurement_id
        with writing(self._engine) as connection:
            has_taught = forget_residual(connection, measurement_id)
            return bool(connection.execute(delete(measurements).where(is_it)).rowcount) or has_taught

    def delete_older_than(self, age_seconds: float) -> int:
        """Forget some of the measurements received more than `age_seconds` ago; return how many they were, 0
        when none are left.
        """
        return delete_batch(
            self._engine, measurements, measurements.c.received_at < time.time() - age_seconds
        )

    def page(
        self,
        *,
        limit: int,
        before: int | None = None,
        job: str | None = None,
        plan_id: str | None = None,
    ) -> MeasurementPage:
        """The latest `limit` measurements, or those before the row numbered `before`."""
        query, wanted = select(*_READ), {"job": job, "plan_id": plan_id}
        rows, cursor = latest_rows(self._engine, query, measurements, limit=limit, before=before, **wanted)
        return MeasurementPage(measurements=[_measurement(row) for row in rows], next_cursor=cursor)


def keep_measurement(connection: Connection, report: MeasurementReport, at: float) -> str:
    """Keep `report` within a transaction, once however often it is sent; its id."""
    return _insert(connection, report, at)[0]


def _insert(connection: Connection, report: MeasurementReport, at: float) -> tuple[str, bool]:
    """The report's id, and whether it is new."""
    document = _canonical(report)
    measurement_id = hashlib.sha256(document).hexdigest()[:32]
    columns = {name: getattr(report, name) for name in _COLUMNS}
    row = {**columns, "id": measurement_id, "received_at": at, "report": document}
    kept = (
        insert_into(connection, measurements)
        .values(row)
        .on_conflict_do_nothing()
        .returning(measurements.c.id)
    )
    is_new = connection.execute(kept).first() is not None
    if is_new:
        keep_residual(connection, measurement_id, report)
    return measurement_id, is_new


def _canonical(report: MeasurementReport) -> bytes:
    fields = json.loads(canonical_json(report))
    # A worker may send back what it once read here: what the service adds is no part of a report.
    for name in ("id", "received_at", "utilization_ratio"):
        fields.pop(name, None)
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def _measurement(row: Row[*tuple[Any, ...]]) -> Measurement:
    fields = json.loads(row.report)
    fields.update(id=row.id, received_at=datetime.fromtimestamp(row.received_at, UTC))
    return Measurement.model_validate(fields)
