"""What a service's refusal means for an attempt: a fence, or something that can be left out of a message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from executor.service.link import MAXIMUM_DETAIL_CHARACTERS, Refused

FENCES = frozenset({401, 404, 409})
"""Statuses that say that the attempt has no right to the job any more, or that there is no such job."""


def require_no_fence(refusal: Refused) -> None:
    """Raises `refusal` where it is a fence; any other status is about the message, not the attempt."""
    if refusal.status in FENCES:
        raise refusal


def without_what_may_be_refused(fields: Mapping[str, Any], reason: str) -> dict[str, Any] | None:
    """The report with less in it, which says so: first without losses, then without the measurement.

    None when there is nothing left to leave out.
    """
    measurement = fields.get("measurement")
    if measurement is None:
        return None
    rest = {name: part for name, part in fields.items() if name != "measurement"}
    if measurement.get("losses"):
        left_out, rest["measurement"] = "losses", {**measurement, "losses": []}
    else:
        left_out = "the measurement"
    told = [str(fields["detail"])] if fields.get("detail") else []
    detail = "; ".join([*told, f"reported without {left_out}, which the service did not take: {reason}"])
    return {**rest, "detail": detail[:MAXIMUM_DETAIL_CHARACTERS]}
