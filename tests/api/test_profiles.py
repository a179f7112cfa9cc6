"""/v1/profiles over real HTTP, and plans with what is kept there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize("implementation", ["fused", "steps"])
def test_a_question_that_names_a_gpu_or_a_profile_of_it_is_about_a_gpu(http, implementation):
    """Without `device`, as the page on calibration asks: the default, the CPU, is not what was meant. Models
    that were not probed are planned by the formulas of that device, the workspace of its matrix library
    included; who says "cpu" means it.
    """
    name = f"a GPU for {implementation}"
    probed = {"device": "cuda:0", "device_name": name, "implementation": implementation}
    kept = http.post("/v1/profiles", json=PROFILE | probed).json()
    request = question(implementation=implementation)
    for reference in ({"device_name": name}, {"profile_id": kept["id"]}):
        plan = http.post("/v1/plans", json=request | reference).json()
        told = http.post("/v1/plans", json=request | reference | {"device": "cuda"}).json()
        assert (plan["cost"]["unit"], plan["id"]) == ("seconds", told["id"])

    request = question(implementation="steps", hidden_size=33) | {"device_name": name}
    lines = [
        {line["name"] for line in http.post("/v1/plans", json=request | said).json()["memory"]["ledger"]}
        for said in ({}, {"device": "cpu"})
    ]
    assert ["matrix library" in names for names in lines] == [True, False]


def test_a_profile_that_is_wrong_can_be_forgotten(http):
    """It was the device's latest and all its plans were refused; the one before counts again, then none"""
    device = {"device_name": "a device that was measured wrongly"}
    segments = [SEGMENTS | {"inner": SEGMENTS["inner"] | {"tape_bytes": 2**61}}]

    def planned() -> tuple[int, str | None]:
        answer = http.post("/v1/plans", json=question(implementation="fused") | device)
        return answer.status_code, answer.json().get("type")

    right = http.post("/v1/profiles", json=PROFILE | device)
    wrong = http.post("/v1/profiles", json=PROFILE | device | {"segments": segments})
    assert planned() == (422, "/problems/budget-too-small")
    assert http.delete(wrong.headers["location"]).status_code == 204
    assert planned() == (201, None)
    assert http.delete(right.headers["location"]).status_code == 204
    assert planned() == (422, "/problems/profile-needed")
    again = http.delete(wrong.headers["location"])
    assert (again.status_code, again.json()["type"]) == (404, "/problems/unknown-profile")


def question(**changes: object) -> dict[str, Any]:
    """A request for the model of PROFILE, or a changed one."""
    model = {
        **{name: PROFILE[name] for name in ("input_size", "hidden_size", "num_layers", "dtype")},
        "kind": PROFILE["cell"],
        "embedding": {"vocabulary_size": PROFILE["embedding_size"]},
        "head": {"output_size": PROFILE["head_output_size"]},
    }
    return {
        "model": model | changes,
        "sequence": {"length": PROFILE["sequence_length"], "batch_size": PROFILE["batch_size"]},
        "memory": {"device_budget_bytes": "1GiB"},
    }
