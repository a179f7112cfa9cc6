"""Copies that are as late as they may be."""

from __future__ import annotations

import pytest

from executor.offload import transfers
from tests.executor.offload.late import LateStream


@pytest.fixture
def late_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy happens when somebody waits for it."""
    monkeypatch.setattr(transfers, "copy_stream", LateStream)


@pytest.fixture(params=["at once", "late"])
def either_stream(request: pytest.FixtureRequest) -> None:
    """Copies that happen at once, then those that happen when somebody waits for them."""
    if request.param == "late":
        request.getfixturevalue("late_streams")
