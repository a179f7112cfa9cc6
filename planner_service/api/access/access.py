"""Which scope each route asks for: one table, for the gate and for the OpenAPI document.

What has no line here is for `admin` alone, so that a new route is closed until somebody opens it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from planner_service.security import Scope


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who may call a route, and whether it is written down."""

    scope: Scope | None
    """None: the route asks for no key."""
    of_job: Literal["launch", "attempt"] | None = None
    """A token of the job in the path is asked for instead of a key: to open attempts, or of an attempt."""
    most_body_bytes: int | None = None
    """Less than the service takes of those that it knows; None: the same."""
    for_attempts: bool = False
    """Whether the token of a job's current attempt will do instead of a key."""
    audited: frozenset[int] = frozenset()
    """Answers that mean that something was changed."""


_DONE = frozenset({200, 201})
_OPEN = Access(scope=None, most_body_bytes=2**16)
_WEBHOOK = Access(scope=None, most_body_bytes=2**20)
"""An API server shows no token to its webhooks. A Job with all its annotations is smaller than this."""
_OPENING = Access(scope=None, of_job="launch", audited=_DONE)
_OF_ATTEMPT = Access(scope=None, of_job="attempt")

RULES: tuple[tuple[str, re.Pattern[str], Access], ...] = tuple(
    (methods, re.compile(path), access)
    for methods, path, access in (
        ("GET", r"/healthz|/readyz|/openapi\.json", _OPEN),
        ("POST", r"/v1/kubernetes/admission", _WEBHOOK),
        ("POST", r"/v1/jobs/[^/]+/attempts", _OPENING),
        ("POST", r"/v1/jobs/[^/]+/attempts/[^/]+/report", replace(_OF_ATTEMPT, audited=_DONE)),
        ("POST", r"/v1/jobs/[^/]+/attempts/[^/]+/(heartbeat|logs)", _OF_ATTEMPT),
        (
            "POST",
            r"/v1/(plans|frontiers|comparisons|simulations|placements)",
            Access(scope=Scope.PLAN, for_attempts=True),
        ),
        ("POST", r"/v1/jobs|/v1/jobs/[^/]+/cancel", Access(scope=Scope.SUBMIT, audited=_DONE)),
        (
            "POST",
            r"/v1/(measurements|profiles)",
            Access(scope=Scope.WORKER, for_attempts=True, audited=frozenset({201})),
        ),
        ("DELETE", r"/v1/(measurements|profiles)/[^/]+", Access(scope=Scope.ADMIN, audited=frozenset({204}))),
        ("POST", r"/v1/probes", Access(scope=Scope.SUBMIT, audited=_DONE)),
        (
            "POST",
            r"/v1/claims/probes|/v1/probes/[^/]+/report",
            Access(scope=Scope.WORKER, audited=frozenset({200})),
        ),
        ("PUT", r"/v1/nodes/.+", Access(scope=Scope.WORKER, audited=frozenset({201}))),
        ("POST", r"/v1/claims", Access(scope=Scope.WORKER, audited=frozenset({200}))),
        ("GET", r"/v1/audit", Access(scope=Scope.ADMIN)),
        ("GET", r"/v1/(plans|profiles)/.+", Access(scope=Scope.READ, for_attempts=True)),
        ("GET", r"/metrics|/v1/.+", Access(scope=Scope.READ)),
    )
)
_ADMINS = Access(scope=Scope.ADMIN, audited=_DONE)


def access_to(method: str, path: str) -> Access:
    """The rule for a request; the first that fits counts."""
    asked = "GET" if method == "HEAD" else method
    for methods, pattern, access in RULES:
        if methods == asked and pattern.fullmatch(path):
            return access
    return _ADMINS
