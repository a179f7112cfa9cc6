"""Two versions on one database: what the newer one keeps stops nothing at the older one, and is shown there.

Rows are changed to what a newer service would have written: a further field, and a value of a known field.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import Engine, Table, update

from planner_service.api.answers.profile_library import ProfileLibrary
from planner_service.api.jobs.lease_keeper import LeaseKeeper
from planner_service.contract import PlanRequest
from planner_service.planning.candidates import ProfileNotKept
from planner_service.store import ProbeStore, ProfileStore
from planner_service.store.job_tables import jobs, nodes
from planner_service.store.probe_tables import probes
from planner_service.store.profile_tables import profiles
from tests.store.desk import Desk
from tests.store.test_probes import request as probe_request
from tests.store.test_profiles import record

NEWER_MODEL = {"kind": "attention", "heads": 2}


def rewrite(engine: Engine, table: Table, column: str, changes: dict[str, Any], **row: Any) -> None:
    """Put `changes` into the JSON of one row, or of all."""
    with engine.begin() as connection:
        is_it = [table.c[name] == value for name, value in row.items()]
        document = connection.execute(table.select().where(*is_it)).one()._asdict()[column]
        newer = json.dumps(json.loads(document) | changes).encode()
        connection.execute(update(table).where(*is_it).values({column: newer}))


def test_a_job_of_a_kind_that_is_not_known_is_shown_looked_after_and_cancelled(desk: Desk, engine: Engine):
    desk.node()
    job = desk.submit()
    attempt = desk.take()
    rewrite(engine, jobs, "request", {"model": NEWER_MODEL}, id=job.id)
    assert desk.beat(attempt, iteration=1) is False
    (shown,) = desk.jobs.page(limit=9).jobs
    assert shown.model_dump(mode="json", warnings=False)["request"]["model"] == NEWER_MODEL
    desk.lose(job.id)
    assert desk.claim() is None
    assert desk.jobs.cancel(job.id).state == "cancelled"


def test_a_fault_with_one_job_keeps_no_other_from_being_found_silent(desk: Desk, monkeypatch):
    desk.node()
    faulty, silent = desk.submit(), desk.submit()
    desk.take(), desk.take()
    expire = desk.queue.expire

    def faulty_expire(lease):
        if lease.job_id == faulty.id:
            raise ValueError("a state that this version does not know")
        return expire(lease)

    monkeypatch.setattr(desk.queue, "expire", faulty_expire)
    keeper = LeaseKeeper(desk.queue, lease_seconds=1, lost_after_seconds=1)
    assert sum(keeper.look(seconds / 4) for seconds in range(12)) == 1
    assert desk.jobs.get(silent.id).state == "queued"


@pytest.mark.parametrize("changes", [{"power_watts": 300}, {"device_kind": "tpu"}])
def test_a_node_with_more_to_say_is_listed_with_the_others(desk: Desk, engine: Engine, changes):
    desk.node("a"), desk.node("b")
    rewrite(engine, nodes, "registration", changes, name="a")
    listed = desk.nodes.page(limit=9).nodes
    assert [(node.name, node.state) for node in listed] == [("a", "ready"), ("b", "ready")]
    assert {offer.device_kind for offer in desk.nodes.offers()} == {"cpu"}


@pytest.mark.parametrize("changes", [{"power_watts": 300}, {"dtype": "float8"}])
def test_a_profile_with_more_to_say_is_shown_and_no_plan_is_made_with_less(engine: Engine, changes):
    store = ProfileStore(engine)
    known, _ = store.add(record(), subject="a")
    newer, _ = store.add(record(source="the newer one"), subject="a")
    rewrite(engine, profiles, "record", changes, id=newer.id)
    library = ProfileLibrary(store)
    assert [each.id for each in library.page(limit=9, before=None, device_name=None, cell=None).profiles] == [
        newer.id,
        known.id,
    ]
    assert library.get(newer.id).errors == []
    assert store.latest_of("a", device_name="cpu") == known
    assert store.latest_on("cpu") == known
    assert store.of_family(known.family) == [known]
    question = PlanRequest.model_construct(profile_id=newer.id)
    with pytest.raises(ProfileNotKept):
        library.resolved(question)


def test_a_probe_of_a_kind_that_is_not_known_is_shown(engine: Engine, desk: Desk):
    desk.node()
    store = ProbeStore(engine)
    asked = store.add(probe_request())
    rewrite(engine, probes, "request", {"model": NEWER_MODEL}, id=asked.id)
    assert store.claim("a") is None
    assert [(probe.id, probe.state) for probe in store.page(limit=9).probes] == [(asked.id, "failed")]
