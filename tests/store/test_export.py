"""Measurements leave as CSV and Parquet, whole, the oldest first."""

from __future__ import annotations

import csv
import io
import json

import pytest

from planner_service.contract.measurements import MeasurementReport
from planner_service.store import MeasurementStore
from planner_service.store.export import COLUMNS, write_csv, write_parquet

REPORT = {
    "job": 'char, "lstm"\n',
    "plan_id": None,
    "budget_bytes": 2**40,
    "projected_peak_bytes": 991,
    "measured_peak_bytes": 990,
    "seconds_per_iteration": 0.25,
    "iterations": 3,
    "losses": [4.0, None],
    "torch": "2.13.0+cpu",
    "device": "cpu",
}


@pytest.fixture
def ids(engine):
    store = MeasurementStore(engine)
    reports = [REPORT | {"seed": 1}, {name: value for name, value in REPORT.items() if name != "losses"}]
    return [store.add(MeasurementReport.model_validate(report))[0].id for report in reports]


def test_csv_reads_back_as_what_was_reported(engine, ids):
    file = io.StringIO()
    assert write_csv(engine, file) == 2
    first, second = csv.DictReader(io.StringIO(file.getvalue()))
    assert tuple(first) == COLUMNS
    assert [first["id"], second["id"]] == ids
    assert (first["job"], first["budget_bytes"], first["plan_id"]) == (REPORT["job"], str(2**40), "")
    assert json.loads(first["losses"]) == [4.0, None]
    assert json.loads(first["further"]) == {"seed": 1}
    assert second["further"] == ""


def test_an_export_of_nothing_is_a_header(engine):
    file = io.StringIO()
    assert write_csv(engine, file) == 0
    assert file.getvalue().strip() == ",".join(COLUMNS)


def test_parquet_has_the_same_rows_with_types(engine, ids, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra `parquet`")
    assert write_parquet(engine, tmp_path / "m.parquet") == 2
    rows = parquet.read_table(tmp_path / "m.parquet").to_pylist()
    assert [row["id"] for row in rows] == ids
    assert (rows[0]["budget_bytes"], rows[0]["seconds_per_iteration"], rows[0]["plan_id"]) == (
        2**40,
        0.25,
        None,
    )
