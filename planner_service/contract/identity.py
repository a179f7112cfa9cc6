"""The name of a plan: a hash of what was asked and of who answers."""

from __future__ import annotations

import hashlib

from pydantic import BaseModel


def canonical_json(request: BaseModel) -> bytes:
    """The request with every default written out, quantities in bytes and fields in a fixed order.

    Requests that mean the same field by field ("2GiB" and 2147483648) have the same canonical form.
    """
    return request.model_dump_json().encode()


def content_id(request: BaseModel, planner_version: str) -> str:
    """32 hexadecimal digits that name the answer of `planner_version` to `request`."""
    digest = hashlib.sha256()
    digest.update(f"{type(request).__name__}\n{planner_version}\n".encode())
    digest.update(canonical_json(request))
    return digest.hexdigest()[:32]
