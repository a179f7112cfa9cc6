"""Values that reports and nodes may add: kept as they are, as long as every reader can follow them."""

from __future__ import annotations

import json

import pytest
from pydantic import BaseModel, ValidationError

from planner_service.contract.further import MOST_LEVELS
from planner_service.contract.measurements import MeasurementPage, MeasurementReport
from planner_service.contract.nodes import NodeRegistration
from planner_service.store import MeasurementStore, open_database
from planner_service.store.export import write_parquet
from tests.contract.requests import REPORT

NODE = {"device": "cpu", "memory_total_bytes": 100, "memory_free_bytes": 100}


def nested(levels: int, value: object = 1) -> object:
    """Lists and objects in turn, so many levels deep."""
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


def saying(kind: type[BaseModel], further: object) -> dict[str, object]:
    return {**REPORT, "further": further} if kind is MeasurementReport else {**NODE, "facts": {"x": further}}


@pytest.mark.parametrize("kind", [MeasurementReport, NodeRegistration])
def test_a_value_that_readers_could_not_follow_is_refused(kind):
    kind.model_validate(saying(kind, nested(MOST_LEVELS)))
    for levels in (MOST_LEVELS + 1, 230, 254):
        with pytest.raises(ValidationError, match="levels deep"):
            kind.model_validate(saying(kind, nested(levels)))


def test_what_is_taken_is_read_back_by_the_client_and_fits_the_columns_of_an_export(tmp_path):
    engine = open_database(f"sqlite:///{tmp_path / 'kept.sqlite3'}")
    store = MeasurementStore(engine)
    report = {**REPORT, "iterations": 2**62, "further": nested(MOST_LEVELS)}
    store.add(MeasurementReport.model_validate(report))
    page = store.page(limit=9).model_dump_json()
    assert MeasurementPage.model_validate_json(page).model_dump_json() == page
    assert json.loads(page)["measurements"][0]["further"] == report["further"]
    assert write_parquet(engine, tmp_path / "kept.parquet") == 1
    with pytest.raises(ValidationError, match="iterations"):
        MeasurementReport.model_validate({**REPORT, "iterations": 2**63})
    engine.dispose()
