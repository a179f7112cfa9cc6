"""Plans by id: in memory, in the store, or made now."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import NamedTuple

from starlette.requests import Request

from planner_service.api.answers.known_bodies import KnownBodies
from planner_service.api.answers.planning_pool import PlanningPool
from planner_service.api.answers.reply_cache import ReplyCache
from planner_service.api.errors import UnknownPlan
from planner_service.api.storage import stored
from planner_service.contract import PlanRequest, canonical_json
from planner_service.planning import Planner
from planner_service.solvers import Cancellation
from planner_service.store import PlanStore, StoredPlan


class Obtained(NamedTuple):
    """A plan's reply, and whether it was made for this very question."""

    plan_id: str
    reply: bytes
    is_new: bool


class PlanLibrary:
    """Everything the service knows about plans. Replies are bytes: once made, never parsed again.

    For the event loop's thread, because of the cache.
    """

    def __init__(self, planner: Planner, store: PlanStore, cache: ReplyCache, pool: PlanningPool) -> None:
        self._planner = planner
        self._store = store
        self._cache = cache
        self._pool = pool
        self.bodies = KnownBodies()

    def ready(self, plan_id: str) -> bytes | None:
        """The reply if it is in memory. To miss it is no miss yet: `find` looks again, and in the store."""
        return self._cache.get(plan_id) if plan_id in self._cache else None

    async def find(self, plan_id: str) -> bytes | None:
        """The reply if the plan was made before."""
        reply = self._cache.get(plan_id)
        if reply is None:
            reply = await stored(self._store.reply, plan_id)
            if reply is not None:
                self._cache.put(plan_id, reply)
        return reply

    async def read(self, plan_id: str) -> bytes:
        """The reply. Raises UnknownPlan."""
        reply = await self.find(plan_id)
        if reply is None:
            raise UnknownPlan(plan_id)
        return reply

    async def obtain(self, plan_request: PlanRequest, request: Request) -> Obtained:
        """The plan for `plan_request`, made now if need be; `request` is who waits for it.

        Raises PlanningError and what `PlanningPool.answer` raises.
        """
        plan_id = await asyncio.to_thread(self._planner.plan_id, plan_request)
        known = await self.find(plan_id)
        if known is not None:
            return Obtained(plan_id, known, is_new=False)
        reply = await self._pool.answer(plan_id, partial(self._make, plan_id, plan_request), request)
        self._cache.put(plan_id, reply)
        return Obtained(plan_id, reply, is_new=True)

    def make(self, plan_id: str, plan_request: PlanRequest, cancellation: Cancellation) -> bytes:
        """The stored reply, else plan, commit to the store, return the reply. For a planning thread."""
        return self._store.reply(plan_id) or self._make(plan_id, plan_request, cancellation)

    def _make(self, plan_id: str, plan_request: PlanRequest, cancellation: Cancellation) -> bytes:
        reply = self._planner.plan(plan_request, cancellation).model_dump_json().encode()
        return self._store.add(StoredPlan(plan_id, canonical_json(plan_request), reply))

    def look_again(self) -> None:
        """Find plans in the store from now on: what any service has deleted there is none any more."""
        self._cache.clear()

    def delete_older_than(self, age_seconds: float) -> int:
        """Forget some of the stored plans made more than `age_seconds` ago; return how many they were, 0 when
        none are left.
        """
        return self._store.delete_older_than(age_seconds)
