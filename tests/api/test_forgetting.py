"""The service forgets in batches until nothing old is left, and others have their turn in between."""

from __future__ import annotations

import asyncio

from sqlalchemy.exc import OperationalError

from planner_service.api import forgetting
from planner_service.api.forgetting import Retention, forget_what_is_old


def forget(monkeypatch, *batches, age_seconds=60.0):
    """What was asked for while the batches came out like this, in order, and `look` after each."""
    monkeypatch.setattr(forgetting, "PAUSE_SECONDS", 0.0)
    told, coming = [], iter(batches)

    def delete_batch(age):
        told.append(age)
        batch = next(coming)
        if isinstance(batch, Exception):
            raise batch
        return batch

    retention = Retention(
        what="plans",
        age_seconds=age_seconds,
        delete_batch=delete_batch,
        afterwards=lambda: told.append("look"),
    )

    async def one_round():
        task = asyncio.create_task(forget_what_is_old([retention]))
        await asyncio.wait({task}, timeout=0.2)
        task.cancel()

    asyncio.run(one_round())
    return told


def test_batches_are_deleted_until_there_are_none(monkeypatch):
    assert forget(monkeypatch, 2, 1, 0) == [60.0, "look", 60.0, "look", 60.0, "look"]


def test_a_database_that_is_away_is_tried_in_the_next_round(monkeypatch, caplog):
    away = OperationalError("DELETE", {}, Exception("gone"))
    assert forget(monkeypatch, 2, away) == [60.0, "look", 60.0]
    assert "old plans not deleted" in caplog.text


def test_what_has_no_retention_is_never_asked_about(monkeypatch):
    assert forget(monkeypatch, age_seconds=None) == []
