"""What can become of a job: pure transitions on frozen values. No clock, no database, no network.

`docs/decisions/0003-jobs-and-attempts.md` says why they are as they are.
"""

from planner_service.jobs.attempts import (
    AttemptResult,
    Outcome,
    end_attempt,
    open_attempt,
    renew,
    require_current,
)
from planner_service.jobs.errors import (
    AttemptEnded,
    IdempotencyKeyReused,
    InvalidToken,
    JobEnded,
    JobNotAssigned,
    JobNotQueued,
    JobRefusal,
    StaleAttempt,
    UnknownAttempt,
    UnknownJob,
    UnknownNode,
    UnknownProbe,
)
from planner_service.jobs.leases import Lease, LeaseWatch
from planner_service.jobs.needs import DeviceKind, DeviceNeeds, JobNeeds
from planner_service.jobs.queue import assign, cancel, expire, give_up, refuse
from planner_service.jobs.standing import FINAL, LIVE, SCHEDULERS, Change, Reason, Standing, State
from planner_service.jobs.tokens import is_token, new_token, token_hash
from planner_service.jobs.waiting import Offer, why_it_waits

__all__ = [
    "FINAL",
    "LIVE",
    "SCHEDULERS",
    "AttemptEnded",
    "AttemptResult",
    "Change",
    "DeviceKind",
    "DeviceNeeds",
    "IdempotencyKeyReused",
    "InvalidToken",
    "JobEnded",
    "JobNeeds",
    "JobNotAssigned",
    "JobNotQueued",
    "JobRefusal",
    "Lease",
    "LeaseWatch",
    "Offer",
    "Outcome",
    "Reason",
    "StaleAttempt",
    "Standing",
    "State",
    "UnknownAttempt",
    "UnknownJob",
    "UnknownNode",
    "UnknownProbe",
    "assign",
    "cancel",
    "end_attempt",
    "expire",
    "give_up",
    "is_token",
    "new_token",
    "open_attempt",
    "refuse",
    "renew",
    "require_current",
    "token_hash",
    "why_it_waits",
]
