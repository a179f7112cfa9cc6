"""Plan requests that were answered before, by the very bytes of their bodies.

Schedulers ask the same again and again; a hash of the body is cheaper than parsing it, checking it and
hashing what it means. The plan itself is found by its id, as always.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from planner_service.api.answers.caching import etag
from planner_service.api.answers.large_bodies import Handler, LargeBodyRoute, is_json
from planner_service.api.errors import ClientGone

MOST_BODIES = 20_000


class KnownBodies:
    """Plan ids by the SHA-256 of a request's body. For the event loop's thread."""

    def __init__(self) -> None:
        self._plan_ids: OrderedDict[bytes, str] = OrderedDict()

    def plan_id(self, body: bytes) -> str | None:
        """The plan that this body asked for before."""
        return self._plan_ids.get(hashlib.sha256(body).digest())

    def remember(self, body: bytes, plan_id: str) -> None:
        """`body` asks for this plan, now and for ever: nothing that changes is in the question."""
        self._plan_ids[hashlib.sha256(body).digest()] = plan_id
        if len(self._plan_ids) > MOST_BODIES:
            self._plan_ids.popitem(last=False)


class PlanRoute(LargeBodyRoute):
    """Answers a body that is known from memory; everything else goes FastAPI's way."""

    def get_route_handler(self) -> Handler:
        """FastAPI's handler, with the short way before it for POST."""
        full_way: Handler = super().get_route_handler()
        return _short_way_first(full_way) if "POST" in (self.methods or ()) else full_way


def _short_way_first(full_way: Handler) -> Handler:
    async def answer(request: Request) -> Response:
        if is_json(request):
            try:
                body = await request.body()
            except ClientDisconnect:
                raise ClientGone from None
            plans = request.app.state.service.plans
            plan_id = plans.bodies.plan_id(body)
            reply = None if plan_id is None else plans.ready(plan_id)
            if reply is not None:
                return plan_response(plan_id, reply, is_new=False)
        return await full_way(request)

    return answer


def plan_response(plan_id: str, reply: bytes, *, is_new: bool) -> Response:
    """A plan as the answer to its request."""
    headers = {"location": f"/v1/plans/{plan_id}", "etag": etag(plan_id)}
    return Response(reply, 201 if is_new else 200, headers, media_type="application/json")
