"""Conditional requests for answers that never change: their id is their validator."""

from __future__ import annotations

from starlette.requests import Request

IMMUTABLE = "public, max-age=31536000, immutable"


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
