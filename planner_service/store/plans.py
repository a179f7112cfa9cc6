"""Plans by id: the canonical request, and the very bytes that were answered."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy import Engine, insert, select
from sqlalchemy.exc import IntegrityError

from planner_service.store.retention import delete_batch
from planner_service.store.tables import plans


@dataclass(frozen=True)
class StoredPlan:
    """A plan as it is kept; `request` is canonical JSON, `reply` what the service answers."""

    id: str
    request: bytes
    reply: bytes


class PlanStore:
    """Plans in the database. Every method is one transaction, committed before it returns."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, plan: StoredPlan) -> bytes:
        """Keep `plan`; return the reply under its id: this one, or the one that was there before."""
        row = {"id": plan.id, "request": plan.request, "reply": plan.reply, "created_at": time.time()}
        try:
            with self._engine.begin() as connection:
                connection.execute(insert(plans).values(row))
        except IntegrityError:  # another process was faster: the first answer stays the answer
            return self.reply(plan.id) or plan.reply
        return plan.reply

    def reply(self, plan_id: str) -> bytes | None:
        """The stored answer, or None."""
        with self._engine.connect() as connection:
            found = connection.execute(select(plans.c.reply).where(plans.c.id == plan_id)).scalar()
        return None if found is None else bytes(found)

    def get(self, plan_id: str) -> StoredPlan | None:
        """The plan with the request that it answers, or None."""
        with self._engine.connect() as connection:
            row = connection.execute(select(plans).where(plans.c.id == plan_id)).one_or_none()
        return None if row is None else StoredPlan(row.id, bytes(row.request), bytes(row.reply))

    def delete_older_than(self, age_seconds: float) -> int:
        """Forget some of the plans made more than `age_seconds` ago; return how many they were, 0 when none
        are left.
        """
        return delete_batch(self._engine, plans, plans.c.created_at < time.time() - age_seconds)
