"""Who asks: the one place where a request's identity is found out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import Request
from starlette.types import Scope

from planner_service.jobs import InvalidToken

_KEY = "tightfit.caller"


@dataclass(frozen=True)
class Caller:
    """Whoever sent a request."""

    name: str
    """What jobs are marked with, and what one's idempotency keys belong to."""


ANYBODY = Caller("anybody")
"""The service asks nobody who they are: it listens on the loopback address."""


def remember_caller(scope: Scope, caller: Caller) -> None:
    """The gate has found out who sent the request."""
    scope[_KEY] = caller


def caller_in(scope: Scope) -> Caller:
    """Who sent the request of this ASGI scope."""
    found: Caller = scope.get(_KEY, ANYBODY)
    return found


def caller_of(request: Request) -> Caller:
    """Who sent `request`."""
    return caller_in(request.scope)


async def _caller_of(request: Request) -> Caller:  # a plain function would be sent to a thread
    return caller_of(request)


CallerDependency = Annotated[Caller, Depends(_caller_of)]

_worker_token = HTTPBearer(
    auto_error=False,
    scheme_name="worker token",
    description="The launch token of a job, or the token of one of its attempts",
)


async def worker_token(
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_worker_token)],
) -> str:
    """The token that a worker sends for one job. Raises InvalidToken where there is none."""
    if credentials is None:
        raise InvalidToken
    return credentials.credentials


WorkerToken = Annotated[str, Depends(worker_token)]
