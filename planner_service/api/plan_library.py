"""Plans by id: in memory, in the store, or made now."""

from __future__ import annotations

import asyncio

from planner_service.api.errors import UnknownPlan
from planner_service.api.plan_cache import PlanCache
from planner_service.contract import PlanRequest, canonical_json
from planner_service.planning import Planner
from planner_service.solvers import Cancellation
from planner_service.store import PlanStore, StoredPlan


class PlanLibrary:
    """Everything the service knows about plans. Replies are bytes: once made, never parsed again."""

    def __init__(self, planner: Planner, store: PlanStore, *, cache_bytes: int) -> None:
        self._planner = planner
        self._store = store
        self._cache = PlanCache(cache_bytes)

    def cached(self, plan_id: str) -> bytes | None:
        """The reply if it is in memory. For the event loop's thread, as all but `make`."""
        return self._cache.get(plan_id)

    async def find(self, plan_id: str) -> bytes | None:
        """The reply if the plan was made before."""
        reply = self._cache.get(plan_id)
        if reply is None:
            reply = await asyncio.to_thread(self._store.reply, plan_id)
            if reply is not None:
                self._cache.put(plan_id, reply)
        return reply

    async def read(self, plan_id: str) -> bytes:
        """The reply. Raises UnknownPlan."""
        reply = await self.find(plan_id)
        if reply is None:
            raise UnknownPlan(plan_id)
        return reply

    def make(self, plan_id: str, request: PlanRequest, cancellation: Cancellation) -> bytes:
        """Plan, commit to the store, return the reply. Blocks: for a planning thread."""
        reply = self._planner.plan(request, cancellation=cancellation).model_dump_json().encode()
        return self._store.add(StoredPlan(plan_id, canonical_json(request), reply))

    def delete_older_than(self, age_seconds: float) -> int:
        """Forget stored plans made more than `age_seconds` ago; return how many they were."""
        return self._store.delete_older_than(age_seconds)
