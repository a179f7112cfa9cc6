"""/openapi.json: the description of the service, for programs that generate clients.

FastAPI's own route makes the document anew whenever somebody asks: half a second of the event loop, for
everybody who can reach the service, since nobody needs a key for it. It is made once here.
"""

from __future__ import annotations

import asyncio
import json

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


async def openapi(request: Request) -> Response:
    """The OpenAPI document."""
    state = request.app.state
    if not hasattr(state, "description"):
        state.description = await asyncio.to_thread(_described, request.app)
    return Response(state.description, media_type="application/json")


def _described(app: FastAPI) -> bytes:
    return json.dumps(app.openapi(), ensure_ascii=False, separators=(",", ":")).encode()


openapi_route = Route("/openapi.json", openapi, methods=["GET"])
