"""Residuals: measured peaks beside what was projected, per cell, implementation, dtype, segments, device."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import NamedTuple

from sqlalchemy import Connection, Float, case, cast, delete, func, select
from sqlalchemy.sql.elements import ColumnElement

from planner_service.contract.measurements import MeasurementReport
from planner_service.store.profile_tables import residuals
from planner_service.store.tables import plans
from planner_service.store.upsert import insert_into


class Family(NamedTuple):
    """What is measured together: models of other sizes, the same code on the same device."""

    device_name: str
    cell: str
    implementation: str
    dtype: str


class Residual(NamedTuple):
    """A run, and how many it stands for: those of its segment length that measured no more of what was
    projected, on its side of twice as much.
    """

    segment_steps: int
    projected_bytes: int
    measured_bytes: int
    runs: int


def keep_residual(connection: Connection, measurement_id: str, report: MeasurementReport) -> None:
    """Keep the report's residual, if it says what it is one of. Inexact gradients have kernels of their own,
    whose peaks say nothing of the family's.
    """
    told = (report.cell, report.implementation, report.dtype, report.segment_steps)
    if None in told or report.projected_peak_bytes == 0 or report.exact_gradient is False:
        return
    row = {
        "measurement_id": measurement_id,
        "device_name": report.device,
        "cell": report.cell,
        "implementation": report.implementation,
        "dtype": report.dtype,
        "segment_steps": report.segment_steps,
        "projected_bytes": _projected_bytes(connection, report),
        "measured_bytes": report.measured_peak_bytes,
    }
    # Retention may have deleted the measurement and not what it taught: the report, sent again, is news.
    connection.execute(insert_into(connection, residuals).values(row).on_conflict_do_nothing())


def _projected_bytes(connection: Connection, report: MeasurementReport) -> int:
    """What was projected before any margin, or less. Margins are of that: one that fell short has to grow,
    which it would not if the run were compared with what it came to.
    """
    request = connection.execute(select(plans.c.request).where(plans.c.id == report.plan_id)).scalar()
    profile = {} if request is None else json.loads(request).get("profile") or {}
    margin = Fraction(profile.get("margin_ratio") or 1)
    return max(1, math.floor(report.projected_peak_bytes / margin))


def forget_residual(connection: Connection, measurement_id: str) -> bool:
    """Calibrate no longer with that measurement; whether anything did."""
    is_its = residuals.c.measurement_id == measurement_id
    return bool(connection.execute(delete(residuals).where(is_its)).rowcount)


_STEPS, _PROJECTED, _MEASURED = (
    residuals.c.segment_steps,
    residuals.c.projected_bytes,
    residuals.c.measured_bytes,
)
_RATIO = cast(_MEASURED, Float) / func.nullif(cast(_PROJECTED, Float), 0.0)
_IS_FAR = case((_MEASURED - _PROJECTED > _PROJECTED, 1), else_=0)
"""Whether it measured over twice its projection (`calibration.margins`): as 64 bits can tell, and exactly."""
_NEARLY = 1 - 1e-9
"""Ratios that the database's numbers cannot tell apart are compared here."""


def residuals_of(connection: Connection, family: Family) -> list[Residual]:
    """What the family's runs say of each segment length: the largest on either side of twice the projection.

    The database looks for them: there may be hundreds of thousands of runs, and every plan asks.
    """
    most = (
        select(_STEPS, _IS_FAR.label("is_far"), func.count().label("runs"), func.max(_RATIO).label("ratio"))
        .where(*_of_family(family))
        .group_by(_STEPS, _IS_FAR)
        .subquery()
    )
    is_most = (
        (most.c.segment_steps == _STEPS) & (most.c.is_far == _IS_FAR) & (most.c.ratio * _NEARLY <= _RATIO)
    )
    largest = select(_STEPS, _PROJECTED, _MEASURED, most.c.runs, most.c.is_far).distinct()
    found: dict[tuple[int, int], Residual] = {}
    for *run, is_far in connection.execute(largest.join(most, is_most).where(*_of_family(family))):
        residual = Residual(*run)
        known = found.setdefault((residual.segment_steps, is_far), residual)
        if _ratio(residual) > _ratio(known):
            found[residual.segment_steps, is_far] = residual
    return list(found.values())


def _ratio(residual: Residual) -> Fraction:
    return Fraction(residual.measured_bytes, residual.projected_bytes)


def _of_family(family: Family) -> list[ColumnElement[bool]]:
    return [residuals.c[name] == value for name, value in family._asdict().items()]
