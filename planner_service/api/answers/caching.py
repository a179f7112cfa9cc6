"""Conditional requests: answers that never change have their id as validator, others a hash of themselves."""

from __future__ import annotations

import hashlib

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

IMMUTABLE = "private, max-age=31536000, immutable"
"""Private: a proxy's cache would answer whoever asks it, without a key, and count nobody."""


def etag(content_id: str) -> str:
    """The entity tag of an answer that is named by its content."""
    return f'"{content_id}"'


def not_modified(request: Request, content_id: str) -> bool:
    """Whether the caller has this very answer already (If-None-Match)."""
    given = request.headers.get("if-none-match")
    if given is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in given.split(",")]
    return "*" in tags or etag(content_id) in tags


def json_answer(answer: BaseModel) -> Response:
    """An answer that may hold what only a newer service knows (`contract.newer`); FastAPI would warn."""
    return Response(_json_of(answer), media_type="application/json")


def _json_of(answer: BaseModel) -> bytes:
    return answer.model_dump_json(warnings=False).encode()


def answer_if_changed(request: Request, answer: BaseModel) -> Response:
    """`answer` as it stands now, or 304 when the caller has just that."""
    body = _json_of(answer)
    content_id = hashlib.sha256(body).hexdigest()[:32]
    headers = {"etag": etag(content_id), "cache-control": "no-cache"}
    if not_modified(request, content_id):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")
