"""A job's events over as many connections as it takes: services restart while jobs go on."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from planner_service.contract.job_events import JobEvent

if TYPE_CHECKING:
    from planner_service.client import PlannerClient

AWAY_SECONDS = 600.0
"""How long a service that does not answer is waited for: as long as a worker keeps its report."""
RETRY_SECONDS = 1.0
LATER = frozenset({429, 503})
"""Statuses after which the same question may be answered."""


def events_until_over(client: PlannerClient, job_id: str) -> Iterator[JobEvent]:
    """What happens to the job, each event once, until it is over, also past restarts of the service.

    Raises PlannerRefused, and PlannerUnreachable when nobody has answered for AWAY_SECONDS, or not even once.
    """
    from planner_service.client import PlannerRefused, PlannerUnreachable

    client.job(job_id)  # a wrong address or id is not waited for
    seen, away_since = 0, None
    while True:
        try:
            if away_since is not None:
                client.job(job_id)
                away_since = None  # it is back, however long nothing happens then
            for event in client.job_events(job_id, after=seen):
                seen = event.number
                yield event
            return
        except (PlannerUnreachable, PlannerRefused) as error:
            if isinstance(error, PlannerRefused) and error.status not in LATER:
                raise
            now = time.monotonic()
            away_since = now if away_since is None else away_since
            if now - away_since > AWAY_SECONDS:
                raise
            print(f"asking again in {RETRY_SECONDS:g} s: {error}", file=sys.stderr, flush=True)
        time.sleep(RETRY_SECONDS)
