"""One line of log for a request: who, what, how it went, how long it took.

Reads that succeed are for the level `debug`: a scheduler makes thousands of them a second. So are claims
that find nothing, of which every idle agent makes one a second.
"""

from __future__ import annotations

import logging

from starlette.types import Scope

from planner_service.api.access.identity import caller_in
from planner_service.api.watching.request_ids import request_id

log = logging.getLogger(__name__)

_READS = frozenset({"GET", "HEAD"})
_CLAIMS = frozenset({"claim_job", "claim_probe"})


def log_request(scope: Scope, *, route: str, status: int, seconds: float) -> None:
    """Write the line, if anybody wants it."""
    is_read = scope["method"] in _READS and status < 400
    found_nothing = route in _CLAIMS and status == 204
    level = logging.DEBUG if is_read or found_nothing else logging.INFO
    if not log.isEnabledFor(level):
        return
    fields = {
        "action": "request",
        "request_id": request_id(scope),
        "caller": caller_in(scope).name,
        "method": scope["method"],
        "path": scope["path"],
        "route": route,
        "status": status,
        "seconds": round(seconds, 6),
    }
    if job_id := scope.get("path_params", {}).get("job_id"):
        fields["job"] = job_id
    log.log(level, "%s %s %d", scope["method"], scope["path"], status, extra=fields)
