"""Plans are kept once, byte for byte, until they are too old."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from planner_service.store import PlanStore, StoredPlan, open_database
from planner_service.store.tables import plans

PLAN = StoredPlan("abc", b'{"strategy":"auto"}', b'{"id":"abc"}')


def test_an_unknown_plan_is_none(engine):
    assert PlanStore(engine).reply("abc") is None


def test_a_kept_plan_is_answered_byte_for_byte_by_the_next_process(engine, url):
    assert PlanStore(engine).add(PLAN) == PLAN.reply
    reopened = open_database(url)
    assert PlanStore(reopened).reply("abc") == PLAN.reply
    reopened.dispose()


def test_the_first_answer_stays_the_answer(engine):
    store = PlanStore(engine)
    store.add(PLAN)
    assert store.add(StoredPlan("abc", PLAN.request, b"another")) == PLAN.reply
    assert store.reply("abc") == PLAN.reply


@pytest.mark.parametrize(("age_seconds", "deleted"), [(50, 1), (200, 0)])
def test_only_plans_past_their_age_are_deleted(engine, age_seconds, deleted):
    store = PlanStore(engine)
    store.add(PLAN)
    store.add(StoredPlan("new", b"", b"new"))
    with engine.begin() as connection:
        made = update(plans).where(plans.c.id == "abc").values(created_at=plans.c.created_at - 100)
        connection.execute(made)
    assert store.delete_older_than(age_seconds) == deleted
    assert (store.reply("abc") is None) == bool(deleted)
    assert store.reply("new") == b"new"
