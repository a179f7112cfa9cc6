"""/v1/profiles over real HTTP, and plans with what is kept there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

PROFILE = json.loads(
    (Path(__file__).parents[2] / "openapi" / "examples" / "profiles" / "character-gru.json").read_text()
)
SEGMENTS = PROFILE["segments"][0]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"hidden_size": 10**12, "batch_size": 10**12}, "invalid-chain"),
        ({"static": [{"name": name, "bytes": 2**62} for name in "ab"]}, "invalid-chain"),
        ({"segments": [SEGMENTS | {"last_steps": 3}]}, "profile-mismatch"),
    ],
)
def test_a_profile_that_no_plan_could_use_is_refused_and_not_kept(http, change, problem):
    """Kept, it would be the device's latest, and its likes could no longer be estimated"""
    device = {"device_name": f"a device of {problem}"}
    answer = http.post("/v1/profiles", json=PROFILE | device | change)
    assert (answer.status_code, answer.json()["type"]) == (422, f"/problems/{problem}")
    assert http.get("/v1/profiles", params=device).json()["profiles"] == []
