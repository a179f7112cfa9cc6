"""What the tests of the HTTP service share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from planner_service.chain import Chain, Stage, StageRun
from tests.serving import Serving


@pytest.fixture
def http(service: Serving) -> Iterator[httpx.Client]:
    """A client of the shared service."""
    with httpx.Client(base_url=service.url, timeout=60) as client:
        yield client


@pytest.fixture
def chain_of() -> Callable[[dict[str, Any]], Chain]:
    """The chain of a request of kind `chain` with one run, built without the code under test."""

    def build(request: dict[str, Any]) -> Chain:
        (run,) = request["model"]["stages"]
        fields = dict(run)
        return Chain((StageRun(fields.pop("count"), Stage(**fields)),))

    return build
