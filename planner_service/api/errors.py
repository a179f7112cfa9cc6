"""Refusals of the service itself, and the one table from them to HTTP statuses.

The planner's own refusals are in `planner_service.chain.errors`; they are 422 (see
`planner_service.contract.problem`, which writes the documents of both).
"""

from __future__ import annotations

from planner_service.chain import PlanningError
from planner_service.jobs import (
    AttemptEnded,
    InvalidToken,
    JobEnded,
    JobNotAssigned,
    JobNotQueued,
    StaleAttempt,
    UnknownAttempt,
    UnknownJob,
    UnknownNode,
    UnknownProbe,
)


class ServiceError(PlanningError):
    """Base of the refusals that are about the service, not about what was asked."""


class MalformedJson(ServiceError):
    """The body is not JSON."""

    def __init__(self, reason: str, position: int | None = None) -> None:
        self.reason = reason
        self.position = position
        where = "" if position is None else f" at character {position}"
        super().__init__(f"the body is not JSON: {reason}{where}")


class TooManyErrors(ServiceError):
    """The body is JSON, and hardly anything of it is what was asked for."""

    def __init__(self, *, error_count: int) -> None:
        self.error_count = error_count
        super().__init__(f"{error_count} fields are wrong or unknown: this is another kind of document")


class UnsupportedMediaType(ServiceError):
    """The body is declared as something else than JSON."""

    def __init__(self, media_type: str) -> None:
        self.media_type = media_type
        super().__init__(f"the body is {media_type or 'of no declared type'}: send application/json")


class CompressedBody(ServiceError):
    """The body is declared as compressed, which would get around the limit on its bytes."""

    def __init__(self, content_encoding: str) -> None:
        self.content_encoding = content_encoding
        super().__init__(f"the body is declared as {content_encoding}: send it without a content-encoding")


class UnknownPath(ServiceError):
    """Nothing is served at this path."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(f"nothing is served at {path}: /openapi.json lists what is")


class AnotherName(ServiceError):
    """The request is meant for another machine, or comes from a page of one."""

    def __init__(self, named: str) -> None:
        self.named = named
        super().__init__(
            f"the request names {named!r}: one that asks for no key answers only who calls it by a loopback "
            "address or localhost; with TIGHTFIT_AUTHENTICATION=always any name will do"
        )


class MethodNotAllowed(ServiceError):
    """The path is served, with other methods."""

    def __init__(self, method: str, allowed: list[str]) -> None:
        self.method = method
        self.allowed = allowed
        super().__init__(f"{method} is not served here: use {' or '.join(allowed)}")


class BodyTooLarge(ServiceError):
    """The body is over the service's limit."""

    def __init__(self, *, maximum_body_bytes: int, of_strangers: bool = False) -> None:
        """`of_strangers`: the limit is that of requests without a key."""
        self.maximum_body_bytes = maximum_body_bytes
        cure = "write runs of equal stages with a count, or let the operator raise TIGHTFIT_MAX_BODY_BYTES"
        if of_strangers:
            cure = "no more is taken here from those who show no key"
        super().__init__(f"the body is larger than {maximum_body_bytes} bytes: {cure}")


class UnknownPlan(ServiceError):
    """There is no plan of this id, or its retention is over: ask for it again."""

    def __init__(self, plan_id: str) -> None:
        self.plan_id = plan_id
        super().__init__(f"no plan has the id {plan_id!r}: POST its request to /v1/plans to make it")


class UnknownProfile(ServiceError):
    """There is no profile of this id."""

    def __init__(self, profile_id: str) -> None:
        self.profile_id = profile_id
        super().__init__(f"no profile has the id {profile_id!r}")


class UnknownMeasurement(ServiceError):
    """There is no measurement of this id."""

    def __init__(self, measurement_id: str) -> None:
        self.measurement_id = measurement_id
        super().__init__(f"no measurement has the id {measurement_id!r}")


class ClientGone(ServiceError):
    """Whoever asked has hung up; nobody reads this."""

    def __init__(self) -> None:
        super().__init__("the client closed the connection before the answer was ready")


class Unauthenticated(ServiceError):
    """The request comes with no key, or with one that does not count."""

    def __init__(self) -> None:
        super().__init__(
            "no key, or one that is unknown, expired or revoked: send `Authorization: Bearer KEY` with a key "
            "that `tightfit keys create` has made"
        )


class WrongScope(ServiceError):
    """The caller is known, and may not do this."""

    status = 403

    def __init__(self, *, needed_scope: str) -> None:
        self.needed_scope = str(needed_scope)
        super().__init__(f"this needs a key with the scope {needed_scope}")


class TooManyRequests(ServiceError):
    """The caller asks more often than the operator allows."""

    def __init__(self, *, retry_after_seconds: int) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(
            f"too many requests: go on in {retry_after_seconds} s, or let the operator raise "
            f"TIGHTFIT_REQUESTS_PER_SECOND"
        )


class TooMuchPlanning(ServiceError):
    """The caller has as many computations under way as one caller may have."""

    def __init__(self, *, maximum_computations: int) -> None:
        self.maximum_computations = maximum_computations
        super().__init__(
            f"{maximum_computations} computations of this caller are unfinished: wait for one, or let the "
            f"operator raise TIGHTFIT_PLANNING_PER_CALLER"
        )


class IdentityUnavailable(ServiceError):
    """The identity provider's keys cannot be fetched."""

    def __init__(self) -> None:
        super().__init__("the identity provider does not answer, so its token cannot be checked: try again")


class ShuttingDown(ServiceError):
    """The service ends, and the request took longer than the time that was left."""

    def __init__(self) -> None:
        super().__init__("the service is being stopped and could not finish this in time: ask again")


class NotReady(ServiceError):
    """The service cannot answer well yet."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


class QueueFull(ServiceError):
    """Every planning thread is busy and the queue is at its bound."""

    def __init__(self, *, queue_length: int) -> None:
        self.queue_length = queue_length
        super().__init__(f"{queue_length} requests are waiting already: try again later")


class PlanningTimeout(ServiceError):
    """The planner was stopped at the service's time limit."""

    def __init__(self, *, limit_seconds: float) -> None:
        self.limit_seconds = limit_seconds
        super().__init__(
            f"no answer within {limit_seconds:g} seconds: ask for fewer distinct stages or a simpler "
            f"strategy, or let the operator raise TIGHTFIT_PLANNING_TIMEOUT_SECONDS"
        )


class StorageUnavailable(ServiceError):
    """The database does not answer, or cannot take more. Nothing of the request was kept."""

    def __init__(self) -> None:
        super().__init__("the service's database does not answer or is full: nothing was kept, try again")


class StorageStalled(ServiceError):
    """The database does not answer in time, or was lost while it committed. Whether it has kept the request,
    or will when it goes on, is not known.
    """

    def __init__(self) -> None:
        super().__init__(
            "the service's database did not answer in time, or was lost: the request may or may not have "
            "been kept; send it again, with the same Idempotency-Key where it had one"
        )


class UnstorableText(ServiceError):
    """A text holds what the database cannot keep."""

    def __init__(self) -> None:
        super().__init__("a text of the request holds a character that the database cannot keep, such as NUL")


class InternalError(ServiceError):
    """A fault of the service. What happened is in its log, not in the answer."""

    def __init__(self) -> None:
        super().__init__("the service failed, not the request; its log tells more under the request id")


STATUSES: dict[type[PlanningError], int] = {
    MalformedJson: 400,
    InvalidToken: 401,
    Unauthenticated: 401,
    WrongScope: 403,
    UnknownPath: 404,
    UnknownPlan: 404,
    UnknownMeasurement: 404,
    UnknownProfile: 404,
    UnknownJob: 404,
    UnknownNode: 404,
    UnknownProbe: 404,
    UnknownAttempt: 404,
    MethodNotAllowed: 405,
    JobEnded: 409,
    JobNotAssigned: 409,
    JobNotQueued: 409,
    StaleAttempt: 409,
    AttemptEnded: 409,
    BodyTooLarge: 413,
    UnsupportedMediaType: 415,
    CompressedBody: 415,
    AnotherName: 421,
    TooManyErrors: 422,
    UnstorableText: 422,
    TooManyRequests: 429,
    TooMuchPlanning: 429,
    ClientGone: 499,
    InternalError: 500,
    NotReady: 503,
    QueueFull: 503,
    PlanningTimeout: 503,
    StorageUnavailable: 503,
    StorageStalled: 503,
    IdentityUnavailable: 503,
    ShuttingDown: 503,
}
"""Every ServiceError has a line here; all other refusals of a request are 422."""

RETRY_AFTER_SECONDS: dict[type[PlanningError], int] = {
    NotReady: 1,
    QueueFull: 2,
    PlanningTimeout: 30,  # the same question may get through when it need not share the processors
    StorageUnavailable: 2,
    StorageStalled: 5,
    TooMuchPlanning: 2,
    IdentityUnavailable: 5,
    ShuttingDown: 5,
}
"""When asking again helps, and after how long."""
