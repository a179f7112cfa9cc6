"""The OpenAPI document: problem documents declared on every route, fast routes written by hand."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from planner_service.api.access.access import access_to
from planner_service.contract import PROBLEM_MEDIA_TYPE, ProblemDocument

_COMPONENTS = "#/components/schemas/"
_PROBLEM = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": f"{_COMPONENTS}ProblemDocument"}}}

Responses = dict[int | str, dict[str, Any]]

ANY_PROBLEM: Responses = {"default": {"description": "Any other refusal", "content": _PROBLEM}}
"""Of every route: its presence also keeps FastAPI from declaring errors of its own form."""


_MEANINGS = {
    400: "The body is not JSON",
    401: "The bearer token is missing, or is none for this",
    403: "The key lacks the scope that this needs",
    404: "There is no such thing",
    409: "It cannot happen any more, or not now; `type` says why",
    413: "The body is over the service's limit",
    415: "The body is not declared as JSON",
    422: "The request is not valid, or cannot be fulfilled; `type` and the further fields say why",
    429: "More requests or computations of one caller than the operator allows",
    503: "Not now: the service starts, is full, or gave up at its time limit",
}


_LATER = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer", "minimum": 1}}}
_RETRIED = (429, 503)


def problems(*statuses: int) -> Responses:
    """The `responses` of a route that may be refused with these statuses."""
    return {
        status: {
            "description": _MEANINGS[status],
            "content": _PROBLEM,
            **({"headers": _LATER} if status in _RETRIED else {}),
        }
        for status in statuses
    }


_ETAG = {"ETag": {"description": "Names this very answer", "schema": {"type": "string"}}}
CONDITIONAL: Responses = {
    200: {"headers": _ETAG},
    304: {
        "description": "Not Modified: the caller sent this answer's ETag as If-None-Match",
        "headers": _ETAG,
    },
}
"""Of every read that has a validator."""

_LOCATION = {"Location": {"description": "Path of what was kept", "schema": {"type": "string"}}}
LOCATED: Responses = {201: {"headers": _LOCATION}}
"""Of every route that makes something that can be read."""


def known_before(model: type[BaseModel], description: str) -> Responses:
    """Of a route that makes a thing once, however often it is asked: 201 for a new one, 200 for the same."""
    return {200: {"model": model, "description": description, "headers": _LOCATION}, **LOCATED}


MESSAGE_PROBLEMS = problems(400, 413, 415, 422, 503)
"""Of every route that takes a message in its body and keeps what it says."""

QUESTION_PROBLEMS = problems(400, 413, 415, 422, 503)
"""Of every route that takes a question in its body and computes the answer."""


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of `app`."""
    schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    components = schema["components"]["schemas"]
    problem = ProblemDocument.model_json_schema(ref_template=_COMPONENTS + "{model}")
    components.update(problem.pop("$defs", {}))
    components["ProblemDocument"] = problem
    schema["paths"].setdefault("/v1/plans/{plan_id}", {})["get"] = deepcopy(_READ_PLAN)
    _declare_security(schema)
    _declare_validators(schema)
    _declare_events(schema["paths"]["/v1/jobs/{job_id}/events"]["get"]["responses"]["200"])
    return schema


def _declare_security(schema: dict[str, Any]) -> None:
    """Every operation that may ask for a key says for which scope, and how it refuses without."""
    schemes = schema["components"].setdefault("securitySchemes", {})
    schemes["key"] = {"type": "http", "scheme": "bearer", "description": _KEYS}
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            access = access_to(method.upper(), path)
            statuses = (429,) if access.scope is None else (401, 403, 429)
            operation["responses"] |= {str(status): found for status, found in problems(*statuses).items()}
            if access.scope is not None:
                operation["security"] = [{}, {"key": [str(access.scope)]}]


_IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "The ETag of an answer that the caller has",
    "schema": {"type": "string"},
}


def _declare_validators(schema: dict[str, Any]) -> None:
    """Whoever may be answered 304 can ask for it. The routes read the header off the request itself."""
    for operations in schema["paths"].values():
        for operation in operations.values():
            if "304" in operation["responses"]:
                operation["parameters"] = [*operation.get("parameters", []), _IF_NONE_MATCH]


_KEYS = (
    "An API key or an identity provider's token with the named scope, or with `admin`. Asked for only where "
    "the service listens on an address that other machines reach, or is told to ask."
)


def _declare_events(answer: dict[str, Any]) -> None:
    """The schema is that of one event of the stream; its data is a document of its own."""
    for content in answer["content"].values():
        event = {"contentMediaType": "application/json", "contentSchema": {"$ref": content["schema"]["$ref"]}}
        content["schema"] = {
            "type": "object",
            "required": ["id", "event", "data"],
            "properties": {
                "id": {"type": "string", "description": "The event's number, for `Last-Event-ID`"},
                "event": {"type": "string", "description": "The event's kind"},
                "data": {"type": "string", **event},
            },
        }


_READ_PLAN: dict[str, Any] = {
    "tags": ["plans"],
    "summary": "Read Plan",
    "description": "The plan of this id; it never changes.",
    "operationId": "read_plan",
    "parameters": [
        {"name": "plan_id", "in": "path", "required": True, "schema": {"type": "string"}},
    ],
    "responses": {
        "200": {
            "description": "Successful Response",
            "headers": _ETAG,
            "content": {"application/json": {"schema": {"$ref": f"{_COMPONENTS}PlanReply"}}},
        },
        "304": CONDITIONAL[304],
        "404": problems(404)[404],
        **ANY_PROBLEM,
    },
}
