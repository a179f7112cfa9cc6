"""What is past its retention goes a batch at a time, and all of it in the end."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import update

from planner_service.contract.measurements import MeasurementReport
from planner_service.store import (
    AuditStore,
    MeasurementStore,
    PlanStore,
    ProbeStore,
    StoredPlan,
    delete_ended_jobs,
    retention,
)
from planner_service.store.job_tables import jobs
from tests.store.desk import Desk
from tests.store.test_measurements import REPORT
from tests.store.test_probes import request as probe_request

LATER = -1.0
"""An age below zero: everything is older."""


def keep_plan(engine, number):
    PlanStore(engine).add(StoredPlan(f"plan{number}", b"{}", b"{}"))


def keep_measurement(engine, number):
    MeasurementStore(engine).add(MeasurementReport.model_validate({**REPORT, "job": f"job{number}"}))


def keep_entry(engine, number):
    AuditStore(engine).add(caller="c", action="a", subject=str(number))


def keep_probe(engine, number):
    store = ProbeStore(engine)
    store.end(store.add(probe_request()).id, profile_id=None, detail=str(number))


def keep_job(engine, number):
    desk = Desk(engine)
    desk.jobs.cancel(desk.submit(priority=number).id)


KINDS = {
    "plans": (keep_plan, lambda engine: PlanStore(engine).delete_older_than(LATER)),
    "measurements": (keep_measurement, lambda engine: MeasurementStore(engine).delete_older_than(LATER)),
    "audit entries": (keep_entry, lambda engine: AuditStore(engine).delete_older_than(LATER)),
    "probes": (keep_probe, lambda engine: ProbeStore(engine).delete_older_than(LATER)),
    "jobs": (keep_job, lambda engine: delete_ended_jobs(engine, LATER)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_batch_is_so_large_that_writers_wait_for_it_or_the_database_ends_it(engine, monkeypatch, kind):
    monkeypatch.setattr(retention, "BATCH_ROWS", 2)
    Desk(engine).node("a")
    keep, delete = KINDS[kind]
    for number in range(5):
        keep(engine, number)
    assert [delete(engine) for _ in range(4)] == [2, 2, 1, 0]


def test_jobs_that_ran_for_days_go_one_by_one_and_others_together(engine):
    """What they wrote is deleted with them, and is what takes the time"""
    desk = Desk(engine)
    for events in (3 * retention.BATCH_EVENTS, retention.BATCH_EVENTS // 2, 1, 2 * retention.BATCH_EVENTS):
        job = desk.jobs.cancel(desk.submit().id)
        with engine.begin() as connection:
            connection.execute(update(jobs).where(jobs.c.id == job.id).values(event_count=events))
    assert [delete_ended_jobs(engine, 0, now=time.time() + 1) for _ in range(4)] == [1, 2, 1, 0]
