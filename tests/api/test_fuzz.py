"""No body makes the service fail: damaged examples are answered or refused, never with a 500."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner_service.api.app import create_app
from planner_service.settings import Settings

EXAMPLES = Path(__file__).parent.parent.parent / "openapi" / "examples"
RESOURCES = sorted(path.name for path in EXAMPLES.iterdir())
DOCUMENTS = {
    resource: [json.loads(path.read_bytes()) for path in sorted((EXAMPLES / resource).glob("*.json"))]
    for resource in RESOURCES
}
REFUSALS = {400, 413, 415, 422}
UNKNOWN = 404
"""What is left of an example may be a good question about a node that nobody registered."""
OUT_OF_TIME = 503

ODD_NUMBERS = st.sampled_from([0, -1, 1, 2, 1.5, 1e308, 2**31, 2**62, 2**63, 2**64, 10**30, 1e-320])
ODD_TEXTS = st.sampled_from(["", "auto", "1GiB", "-1B", "9" * 40 + "PiB", "\ud800", "\x00", "é" * 100])
ODD_VALUES = st.one_of(
    ODD_NUMBERS,
    ODD_TEXTS,
    st.sampled_from([None, True, float("nan"), float("inf"), [], {}, [[]], {"": {}}]),
    st.recursive(st.integers(), lambda inner: st.lists(inner) | st.dictionaries(ODD_TEXTS, inner)),
)


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside `document`."""
    pairs: Any = ()
    if isinstance(document, dict):
        pairs = document.items()
    elif isinstance(document, list):
        pairs = enumerate(document)
    for key, value in pairs:
        yield (*path, key)
        yield from places(value, (*path, key))


@st.composite
def damaged(draw: st.DrawFn, resource: str) -> Any:
    """An example of the resource with up to three values replaced or removed."""
    document = copy.deepcopy(draw(st.sampled_from(DOCUMENTS[resource])))
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(document))
        if not found:
            break
        *way, last = draw(st.sampled_from(found))
        parent = document
        for key in way:
            parent = parent[key]
        if draw(st.booleans()):
            parent[last] = copy.deepcopy(draw(ODD_VALUES))
        else:
            del parent[last]
    return document


class InProcess:
    """The application in this process, driven synchronously."""

    def __init__(self, data_dir: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._app = create_app(Settings(data_dir=data_dir, planning_timeout_seconds=0.5))
        self._lifespan = self._app.router.lifespan_context(self._app)
        self._loop.run_until_complete(self._lifespan.__aenter__())
        transport = httpx.ASGITransport(app=self._app, raise_app_exceptions=False)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://localhost")

    def post(self, path: str, content: bytes) -> httpx.Response:
        headers = {"content-type": "application/json"}
        return self._loop.run_until_complete(self._client.post(path, content=content, headers=headers))

    def close(self) -> None:
        self._loop.run_until_complete(self._client.aclose())
        self._loop.run_until_complete(self._lifespan.__aexit__(None, None, None))
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    running = InProcess(tmp_path_factory.mktemp("fuzz"))
    yield running
    running.close()


@pytest.mark.parametrize("resource", RESOURCES)
@settings(max_examples=40)
@given(data=st.data())
def test_a_damaged_example_is_answered_or_refused(application, resource, data):
    body = json.dumps(data.draw(damaged(resource))).encode()
    answer = application.post(f"/v1/{resource}", body)
    document = json.loads(answer.content)
    if not answer.is_success:
        assert answer.status_code in {*REFUSALS, UNKNOWN, OUT_OF_TIME}, (body, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert document["detail"]


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(application, body):
    answer = application.post("/v1/plans", body)
    assert answer.status_code in REFUSALS
    assert json.loads(answer.content)["status"] == answer.status_code
