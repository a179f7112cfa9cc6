"""The contract in the repository is the one that the code serves, and its examples work."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import httpx
import pytest

from planner_service.api.app import create_app
from planner_service.cli.openapi import document_text
from planner_service.settings import Settings

OPENAPI = Path(__file__).parent.parent.parent / "openapi"
EXAMPLES = sorted((OPENAPI / "examples").glob("*/*.json"))
PROBLEM = {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}


def test_the_document_in_the_repository_is_the_services():
    """`make openapi` writes it anew."""
    assert (OPENAPI / "openapi.json").read_text() == document_text()


def test_the_service_serves_the_same_document(http):
    assert http.get("/openapi.json").json() == json.loads(document_text())


def test_the_document_is_made_once_however_often_anybody_asks(tmp_path):
    """It takes half a second of processor time, and asks for no key"""
    app = create_app(Settings(data_dir=tmp_path))
    made = []
    app.openapi = lambda: made.append(1) or {"openapi": "3.1.0"}

    async def ask():
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return [(await client.get("/openapi.json")).json() for _ in range(3)]

    assert asyncio.run(ask()) == 3 * [{"openapi": "3.1.0"}]
    assert len(made) == 1


def test_every_operation_declares_its_refusals_as_problem_documents():
    for path, operations in json.loads(document_text())["paths"].items():
        for method, operation in operations.items():
            refusals = {
                status: answer
                for status, answer in operation["responses"].items()
                if status == "default" or status >= "400"
            }
            assert "default" in refusals, (method, path)
            for status, answer in refusals.items():
                assert answer["content"] == {"application/problem+json": PROBLEM}, (method, path, status)


def test_headers_that_clients_send_back_or_wait_by_are_declared():
    """A generated client has no others: it was told of 304 and could not ask for it"""
    for path, operations in json.loads(document_text())["paths"].items():
        for method, operation in operations.items():
            answers, asked = operation["responses"], operation.get("parameters", [])
            headers = {status: set(answer.get("headers", ())) for status, answer in answers.items()}
            sent = [each["name"] for each in asked if each["in"] == "header"]
            if "304" in answers:
                assert sent == ["If-None-Match"], (method, path)
                assert headers["200"] == headers["304"] == {"ETag"}, (method, path)
            assert all(headers[status] == {"Retry-After"} for status in headers.keys() & {"429", "503"})
    made = {"/v1/plans", "/v1/measurements", "/v1/profiles", "/v1/jobs", "/v1/probes"}
    document = json.loads(document_text())["paths"]
    assert {
        path for path in made if "Location" in document[path]["post"]["responses"]["201"]["headers"]
    } == made


def test_only_what_callers_sent_themselves_is_closed_to_further_fields():
    """Clients that were generated strictly must not fail at what a newer service adds to its answers"""
    document = json.loads(document_text())
    schemas = document["components"]["schemas"]
    closed = {name for name, schema in schemas.items() if schema.get("additionalProperties") is False}
    sent: set[str] = set()
    for operations in document["paths"].values():
        for operation in operations.values():
            sent |= referred_from(operation.get("requestBody", {}), schemas)
    assert closed <= sent


def referred_from(part, schemas):
    """The names of all schemas that a part of the document leads to."""
    found: set[str] = set()
    new = names_in(part)
    while new:
        found |= new
        new = set().union(*(names_in(schemas[name]) for name in new)) - found
    return found


def names_in(part):
    return set(re.findall(r"#/components/schemas/(\w+)", json.dumps(part)))


def test_every_schema_that_is_referred_to_is_there():
    text = document_text()
    schemas = json.loads(text)["components"]["schemas"]
    referred = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert referred == set(schemas)


def test_every_quantity_says_what_it_is():
    """Sizes, costs, times, ratios and counts: a name tells the unit, not of what"""
    schemas = json.loads(document_text())["components"]["schemas"]
    fields = {f"{name}.{field}": value for name in schemas for field, value in properties(schemas[name])}
    quantities = {field for field in fields if re.search(r"_(bytes|cost|seconds|ratio|steps|count)$", field)}
    assert "StageRunRecord.tape_bytes" in quantities  # inherited by a dataclass
    assert [field for field in sorted(quantities) if not fields[field].get("description")] == []


def properties(schema):
    """The names and schemas of the fields of one message."""
    return schema.get("properties", {}).items()


def test_there_are_examples_of_success_and_of_refusal():
    refused = [path for path in EXAMPLES if path.stem.endswith("-refused")]
    assert 0 < len(refused) < len(EXAMPLES)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_an_example_answers_as_its_name_says(http, example):
    answer = http.post(
        f"/v1/{example.parent.name}",
        content=example.read_bytes(),
        headers={"content-type": "application/json"},
    )
    if example.stem.endswith("-refused"):
        assert answer.status_code == 422, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
    else:
        assert answer.is_success, answer.text
