"""No body brings a 500, on any route that takes one: deep, huge, odd, broken."""

from __future__ import annotations

import json
from typing import Any

import pytest

from planner_service.cli.openapi import document_text
from tests.api.workers import JOB, NODE
from tests.serving import CHAIN, chain_request

PATHS = [
    (method.upper(), path.replace("{job_id}", "j").replace("{number}", "1").replace("{name}", "n"))
    for path, operations in json.loads(document_text())["paths"].items()
    for method, operation in operations.items()
    if "requestBody" in operation
]
REFUSALS = {400, 401, 404, 409, 413, 415, 422}


def wrong_units(document: dict[str, Any]) -> bytes:
    """The document with quantities of no kind."""
    return json.dumps(document).replace("60", '"60 furlongs"').replace("64MiB", "64 parsecs").encode()


DEEP = b'{"a":' * 400 + b"1" + b"}" * 400
"""Read without a word, and more than can be written again."""
BODIES = {
    "deep lists": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"model":' * 50_000 + b"1" + b"}" * 50_000,
    "a huge integer": b'{"model": ' + b"9" * 5_000 + b"}",
    "a huge float": b'{"model": 1e99999, "budget": -1e400}',
    "NaN": b'{"model": NaN, "memory": {"device_budget_bytes": Infinity}}',
    "invalid UTF-8": b'{"name": "\xff\xfe"}',
    "half a surrogate pair": b'{"name": "\\ud800"}',
    "NUL": b'{"name": "\\u0000"}',
    "a text of 10 MB": b'{"name": "' + b"x" * 10_000_000 + b'"}',
    "a text of 1 MB": b'{"name": "' + b"x" * 1_000_000 + b'"}',
    "many keys": b"{" + b",".join(b'"k%d":1' % number for number in range(10_000)) + b"}",
    "a deep policy": json.dumps({"model": CHAIN["model"], "policy": {}}).encode().replace(b"{}", DEEP),
    "a deep action": json.dumps({"model": CHAIN["model"], "schedule": [{}]}).encode().replace(b"{}", DEEP),
    "a deep fact": json.dumps({**NODE, "facts": {}}).encode().replace(b"{}", DEEP),
    "long facts": json.dumps({**NODE, "facts": {"note": "x" * 70_000}}).encode(),
    "nothing": b"",
    "null": b"null",
    "plan with wrong units": wrong_units(chain_request()),
    "job with wrong units": wrong_units(JOB),
    "node with wrong units": json.dumps({**NODE, "memory_free_bytes": "2 bananas"}).encode(),
}


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_a_hostile_body_is_refused(http, method, path):
    for name, body in BODIES.items():
        answer = http.request(method, path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code in REFUSALS, (name, answer.status_code, answer.text[:300])
        assert answer.headers["content-type"] == "application/problem+json", name
        assert len(answer.content) < 20_000, name
