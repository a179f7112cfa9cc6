"""Measurements are kept once, whole, and listed from the latest on."""

from __future__ import annotations

import pytest

from planner_service.contract.measurements import MeasurementReport
from planner_service.store import Family, MeasurementStore, ProfileStore, open_database

REPORT = {
    "job": "char-lstm",
    "plan_id": "abc",
    "budget_bytes": 1000,
    "projected_peak_bytes": 991,
    "measured_peak_bytes": 990,
    "seconds_per_iteration": 0.25,
    "iterations": 3,
    "losses": [4.0, None, 3.5],
    "gradient_check": {"length": 50, "largest_difference": 1e-16, "passed": True, "dtype": "float64"},
    "torch": "2.13.0+cpu",
    "device": "cpu",
    "seed": 7,
}


def report(**changes: object) -> MeasurementReport:
    return MeasurementReport.model_validate({**REPORT, **changes})


@pytest.fixture
def store(engine):
    return MeasurementStore(engine)


def test_a_report_comes_back_whole_from_the_next_process(store, url):
    kept, _ = store.add(report())
    reopened = open_database(url)
    read = MeasurementStore(reopened).get(kept.id)
    reopened.dispose()
    assert read == kept
    fields = read.model_dump(mode="json")
    assert {name: fields[name] for name in REPORT} == REPORT
    assert fields["utilization_ratio"] == pytest.approx(0.99)


def test_a_report_that_is_sent_again_is_kept_once(store):
    first, first_is_new = store.add(report())
    second, second_is_new = store.add(report())
    assert (first_is_new, second_is_new) == (True, False)
    assert first == second
    assert len(store.page(limit=10).measurements) == 1


def test_a_report_that_is_sent_again_after_retention_is_kept_and_has_taught_once(store, engine):
    """What it taught is still there, and goes when the measurement is forgotten, deleted before or not"""
    told = {"cell": "gru", "implementation": "fused", "dtype": "float32", "segment_steps": 5}
    first, _ = store.add(report(**told))
    assert store.delete_older_than(-1.0) == 1
    second, is_new = store.add(report(**told))
    assert (second.id, is_new) == (first.id, True)

    profiles, family = ProfileStore(engine), Family("cpu", "gru", "fused", "float32")
    assert [residual.runs for residual in profiles.residuals(family)] == [1]
    store.delete_older_than(-1.0)
    assert store.forget(first.id)
    assert profiles.residuals(family) == []
    assert not store.forget(first.id)


def test_a_measurement_that_is_sent_back_is_the_same_report(store):
    first, _ = store.add(report())
    _, is_new = store.add(MeasurementReport.model_validate(first.model_dump(mode="json")))
    assert not is_new


def test_an_unknown_measurement_is_none(store):
    assert store.get("abc") is None


def test_pages_list_every_measurement_once_the_latest_first(store):
    for seed in range(7):
        store.add(report(seed=seed))
    found, cursor = [], None
    while True:
        page = store.page(limit=3, before=cursor)
        found += [item.model_dump()["seed"] for item in page.measurements]
        if page.next_cursor is None:
            break
        cursor = int(page.next_cursor)
    assert found == [6, 5, 4, 3, 2, 1, 0]


def test_a_page_of_large_reports_ends_sooner_and_leads_to_the_rest(store, monkeypatch):
    monkeypatch.setattr("planner_service.store.pages.MOST_BYTES", 10_000)
    ids = [store.add(report(job=f"long-{each}", losses=[each + 0.125] * 1_000))[0].id for each in range(5)]
    found, cursor, pages = [], None, 0
    while pages == 0 or cursor is not None:
        page = store.page(limit=50, before=None if cursor is None else int(cursor))
        found += [measurement.id for measurement in page.measurements]
        cursor, pages = page.next_cursor, pages + 1
    assert found == ids[::-1]
    assert pages == 3  # two of 6 kB, however many were asked for


def test_a_page_may_be_of_one_job_or_one_plan(store):
    store.add(report(job="a", plan_id="p"))
    store.add(report(job="b", plan_id="p"))
    store.add(report(job="b", plan_id=None))
    assert [item.job for item in store.page(limit=9, job="a").measurements] == ["a"]
    assert [item.job for item in store.page(limit=9, plan_id="p").measurements] == ["b", "a"]


@pytest.mark.parametrize(
    "change",
    [
        {"budget_bytes": 0},
        {"measured_peak_bytes": -1},
        {"seconds_per_iteration": float("nan")},
        {"losses": [float("inf")]},
        {"iterations": 0},
        {"job": ""},
    ],
)
def test_numbers_that_make_no_sense_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        report(**change)
