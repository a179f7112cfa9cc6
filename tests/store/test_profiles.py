"""Profiles and residuals, the same on both databases."""

import itertools
import json
import random
from pathlib import Path

import pytest
from sqlalchemy import insert

from planner_service.calibration import PeakResidual, margins_of
from planner_service.contract import ProfileRecord
from planner_service.contract.measurements import MeasurementReport
from planner_service.store import Family, MeasurementStore, ProfileStore
from planner_service.store.profile_tables import residuals
from tests.contract.requests import REPORT

EXAMPLE = Path(__file__).parents[2] / "openapi" / "examples" / "profiles" / "character-gru.json"
FAMILY = Family("cpu", "gru", "fused", "float32")
TOLD = {"cell": "gru", "implementation": "fused", "dtype": "float32", "segment_steps": 20}


@pytest.fixture
def store(engine):
    """Profiles received one second after the other."""
    ticks = itertools.count(1_000)
    return ProfileStore(engine, clock=lambda: float(next(ticks)))


def record(**changes):
    """The example with some fields changed."""
    return ProfileRecord.model_validate({**json.loads(EXAMPLE.read_text()), **changes})


def test_a_profile_is_kept_once_and_read_back_as_it_was_sent(store):
    first, is_new = store.add(record(), subject="a")
    again, is_new_again = store.add(record(), subject="a")
    assert (is_new, is_new_again) == (True, False)
    assert first == again == store.get(first.id)
    assert first.record == record()
    assert store.get("0" * 32) is None


def test_the_latest_profile_of_a_subject_on_a_device_is_found(store):
    store.add(record(), subject="a")
    latest, _ = store.add(record(source="a second probe"), subject="a")
    other, _ = store.add(record(device_name="NVIDIA H100"), subject="a")
    assert store.latest_of("a", device_name="cpu") == latest
    assert store.latest_of("a", device_name="NVIDIA H100") == other
    assert store.latest_of("b", device_name="cpu") is None


def test_a_family_is_of_one_cell_dtype_device_and_of_the_latest_torch(store):
    store.add(record(torch="2.12.0"), subject="a")
    kept = [store.add(record(batch_size=size), subject=str(size))[0] for size in (2, 4)]
    store.add(record(cell="rnn"), subject="c")
    store.add(record(dtype="float64"), subject="d")
    assert [profile.id for profile in store.of_family(FAMILY)] == [kept[1].id, kept[0].id]


def test_pages_are_the_latest_first_and_lead_to_those_before(store):
    kept = [store.add(record(batch_size=size), subject=str(size))[0].id for size in (2, 4, 8)]
    first, cursor = store.page(limit=2, before=None, device_name="cpu", cell="gru")
    rest, end = store.page(limit=2, before=int(cursor), device_name=None, cell=None)
    assert [profile.id for profile in (*first, *rest)] == kept[::-1]
    assert end is None
    assert store.page(limit=2, before=None, device_name="another", cell=None) == ([], None)


def test_a_measurement_leaves_one_residual_if_it_says_of_what(engine, store):
    measurements = MeasurementStore(engine)
    measurements.add(MeasurementReport.model_validate(REPORT))
    for _ in range(2):
        measurements.add(MeasurementReport.model_validate({**REPORT, **TOLD}))
    assert store.residuals(FAMILY) == [(20, 900, 890, 1)]
    assert store.residuals(FAMILY._replace(dtype="float64")) == []


def test_margins_of_the_largest_are_those_of_all_runs(engine, store):
    """The database looks for them, whose numbers tell fewer ratios apart than ours"""
    draw = random.Random(5)
    huge = [(1, 2**61, 2**61), (1, 2**61, 2**61 + 1), (1, 2**61 - 1, 2**61), (4, 2**61, 2**62), (4, 1, 2**62)]
    runs = [*huge, (3, 2**53, 2**54 + 1), (3, 7, 7)]
    runs += [
        (draw.randint(1, 4), size, int(size * draw.choice((0.9, 1.0, 1.0625, 2, 3))))
        for size in (draw.randint(1, 10**6) for _ in range(200))
    ]
    family = FAMILY._asdict()
    rows = [
        {
            **family,
            "measurement_id": str(number),
            "segment_steps": steps,
            "projected_bytes": p,
            "measured_bytes": m,
        }
        for number, (steps, p, m) in enumerate(runs)
    ]
    with engine.begin() as connection:
        connection.execute(insert(residuals), rows)
    found = store.residuals(FAMILY)
    assert len(found) <= 8
    assert margins_of(PeakResidual(*run) for run in found) == margins_of(PeakResidual(*run) for run in runs)


def test_a_run_with_an_inexact_gradient_leaves_none(engine, store):
    """Its kernels are others: its peak must not be a margin of plans with the exact one"""
    measurements = MeasurementStore(engine)
    for exact in (False, True):
        told = {**TOLD, "exact_gradient": exact, "measured_peak_bytes": 890 if exact else 1300}
        measurements.add(MeasurementReport.model_validate({**REPORT, **told}))
    assert store.residuals(FAMILY) == [(20, 900, 890, 1)]


def test_reports_that_were_sent_before_there_were_residuals_keep_their_ids(engine):
    """What a report does not tell is no part of what its id is a hash of"""
    kept, _ = MeasurementStore(engine).add(MeasurementReport.model_validate(REPORT))
    assert kept.id == "85705a712618260f1e60e0d6419071f4"
