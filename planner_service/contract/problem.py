"""Refusals as problem documents (RFC 9457): the numbers as fields, the offending field by its path.

The one table from exception classes to HTTP statuses is here, because the shell prints the same
documents that the service sends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from planner_service.chain import PlanningError
from planner_service.contract.quantities import FAST_BRANCH, SLOW_BRANCH

PROBLEM_MEDIA_TYPE = "application/problem+json"
PROBLEM_TYPES = "/problems/"
"""Prefix of every `type`; what follows is the exception's name in kebab case."""

STATUS_OF_UNLISTED = 422
STATUSES: dict[str, int] = {"cancelled": 499, "unreadable-request": 400}
"""HTTP status by the last part of `type`, for the refusals that are not a plain 422."""

_MOST_ERRORS = 20
_MODEL_KINDS = ("chain", "lstm", "gru", "rnn")
_TAG_ERRORS = {"union_tag_invalid", "union_tag_not_found"}


class FieldProblem(BaseModel):
    """One offending field of a request."""

    model_config = ConfigDict(frozen=True)

    field: str
    detail: str


class ProblemDocument(BaseModel):
    """An error reply. The exception's numbers are further fields: `minimum_budget_bytes`, …"""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str
    title: str
    status: int
    detail: str
    instance: str | None = None
    field: str | None = None
    """JSON path of the offending field: memory.device_budget_bytes, model.stages[3].tape_bytes."""
    errors: list[FieldProblem] | None = None
    """Every offending field (the first 20; of a list those of its first wrong item), when the request does
    not validate."""


def problem_from_error(error: PlanningError, *, instance: str | None = None) -> ProblemDocument:
    """The document of a refusal by the planner; its public attributes become fields."""
    slug = _kebab(type(error).__name__)
    numbers = {name: value for name, value in vars(error).items() if _travels(name, value)}
    return ProblemDocument(
        type=PROBLEM_TYPES + slug,
        title=slug.replace("-", " ").capitalize(),
        status=STATUSES.get(slug, STATUS_OF_UNLISTED),
        detail=str(error),
        instance=instance,
        field=error.field or None,
        **numbers,
    )


def problem_from_validation(
    error: ValidationError, *, instance: str | None = None, inside: str = ""
) -> ProblemDocument:
    """The document of a request that does not validate; `inside` is a path that all of it lies under."""
    return problem_from_details(error.errors(include_url=False), instance=instance, inside=inside)


def problem_from_details(
    details: Iterable[ErrorDetails], *, instance: str | None = None, inside: str = ""
) -> ProblemDocument:
    """Like `problem_from_validation`, from the error list that a web framework hands over."""
    problems: list[FieldProblem] = []
    for detail in details:
        problem = _field_problem(detail, inside)
        if problem is not None and len(problems) < _MOST_ERRORS:
            problems.append(problem)
    first = problems[0]
    return ProblemDocument(
        type=f"{PROBLEM_TYPES}invalid-request",
        title="Invalid request",
        status=422,
        detail=f"{first.field}: {first.detail}" if first.field else first.detail,
        instance=instance,
        field=first.field or None,
        errors=problems,
    )


def _field_problem(error: ErrorDetails, inside: str) -> FieldProblem | None:
    """The error in our words; None for the first of the two that a number type reports."""
    location = error["loc"]
    if location and location[-1] == FAST_BRANCH:
        return None
    path = field_path(location)
    if error["type"] in _TAG_ERRORS:
        path += ".kind"
    context: dict[str, Any] = error.get("ctx") or {}
    if error["type"] == "request":
        path = f"{path}.{context['field']}" if path else context["field"]
    full = ".".join(part for part in (inside, path) if part)
    return FieldProblem(field=full, detail=_sentence(error))


def _sentence(error: ErrorDetails) -> str:
    kind = error["type"]
    if kind in {"extra_forbidden", "unexpected_keyword_argument"}:
        return "unknown field; check the spelling"
    if kind in {"missing", "missing_keyword_only_argument"}:
        return "this field is needed"
    if kind in _TAG_ERRORS:
        return f"the kind of model is needed: one of {', '.join(_MODEL_KINDS)}"
    message, given = error["msg"], error["input"]
    if kind in {"too_long", "too_short"} and isinstance(given, str):  # of any value it says "items"
        return re.sub(" items? after validation", " characters", message)
    if kind in {"quantity", "request"} or not isinstance(given, str | int | float):
        return message
    return f"{message}, not {given!r:.60}"


def field_path(location: Iterable[int | str]) -> str:
    """A pydantic error location as a JSON path: model.stages[3].tape_bytes."""
    path = ""
    previous: int | str | None = None
    for part in location:
        is_tag = part in {FAST_BRANCH, SLOW_BRANCH} or (previous == "model" and part in _MODEL_KINDS)
        if isinstance(part, int):
            path += f"[{part}]"
        elif not is_tag:
            path += f".{part}" if path else part
        previous = part
    return path


def _travels(name: str, value: object) -> bool:
    reserved = name in ProblemDocument.model_fields or name.startswith("_")
    return not reserved and isinstance(value, int | float | str | bool | list | tuple)


def _kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()
