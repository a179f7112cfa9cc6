"""/v1/measurements over real HTTP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

PROFILE = Path(__file__).parents[2] / "openapi" / "examples" / "profiles" / "character-gru.json"

REPORT = {
    "job": "char-lstm",
    "budget_bytes": 1000,
    "projected_peak_bytes": 991,
    "measured_peak_bytes": 990,
    "seconds_per_iteration": 0.25,
    "iterations": 3,
    "losses": [4.0, None, 3.5],
    "gradient_check": {"length": 50, "largest_difference": 1e-16, "passed": True},
    "torch": "2.13.0+cpu",
    "device": "cpu",
}


def test_a_report_is_kept_once_and_read_back(http):
    report = REPORT | {"job": "once"}
    first, second = (http.post("/v1/measurements", json=report) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    assert first.json()["utilization_ratio"] == pytest.approx(0.99)
    assert http.get(first.headers["location"]).json() == first.json()


def test_measurements_are_listed_in_pages(http):
    for seed in range(3):
        http.post("/v1/measurements", json=REPORT | {"job": "paged", "seed": seed})
    page = http.get("/v1/measurements", params={"job": "paged", "limit": 2}).json()
    rest = http.get(
        "/v1/measurements", params={"job": "paged", "limit": 2, "cursor": page["next_cursor"]}
    ).json()
    assert [item["seed"] for item in page["measurements"] + rest["measurements"]] == [2, 1, 0]
    assert rest["next_cursor"] is None


def test_an_unknown_measurement_is_404(http):
    answer = http.get("/v1/measurements/none")
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/unknown-measurement")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"measured_peak_bytes": -1}, "measured_peak_bytes"),
        ({"losses": ["low"]}, "losses[0]"),
        ({"gradient_check": {"length": 0}}, "gradient_check.length"),
        ({"torch": None}, "torch"),
        ({"job": "a\0b"}, "job"),  # PostgreSQL could not keep it
        ({"plan_id": "\0"}, "plan_id"),
    ],
)
def test_a_wrong_report_is_refused_where_it_is_wrong(http, change, field):
    answer = http.post("/v1/measurements", json=REPORT | change)
    assert (answer.status_code, answer.json()["field"]) == (422, field)


@pytest.mark.parametrize("text", ["value", "key"])
def test_half_of_a_surrogate_pair_in_a_further_field_is_refused(http, text):
    further = {"note": "HALF"} if text == "value" else {"HALF": 1}
    body = json.dumps(REPORT | further).replace("HALF", "\\ud800").encode()
    answer = http.post("/v1/measurements", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422, answer.text


@pytest.mark.parametrize("path", ["", "/{id}"])
def test_a_read_that_changes_nothing_is_304(http, path):
    kept = http.post("/v1/measurements", json=REPORT | {"job": "tagged"}).json()
    url = f"/v1/measurements{path.format(**kept)}"
    tag = http.get(url, params={"job": "tagged"}).headers["etag"]
    again = http.get(url, params={"job": "tagged"}, headers={"if-none-match": tag})
    assert (again.status_code, again.content) == (304, b"")


def test_a_measurement_that_cannot_be_spoils_no_plan_and_can_be_forgotten(http):
    """A profile's plans are the same after a report of 2**62 bytes; one that is in reason widens them until
    an admin has it deleted
    """
    profile = json.loads(PROFILE.read_text()) | {"device_name": "a device of this test"}
    kept = http.post("/v1/profiles", json=profile).json()
    steps = kept["profile"]["segments"][0]["segment_steps"]
    names = ("cell", "implementation", "dtype")
    told = {name: profile[name] for name in names} | {"segment_steps": steps, "device": kept["device_name"]}

    def factor() -> tuple[float, int]:
        (margin,) = http.get(f"/v1/profiles/{kept['id']}").json()["margins"]
        return margin["factor"], margin["set_aside_runs"]

    absurd = {"projected_peak_bytes": 1, "measured_peak_bytes": 2**62}
    assert http.post("/v1/measurements", json=REPORT | told | absurd).status_code == 201
    assert factor() == (1.0, 1)
    wide = {"projected_peak_bytes": 1000, "measured_peak_bytes": 1500}
    wrong = http.post("/v1/measurements", json=REPORT | told | wide)
    assert factor() == (1.5, 1)
    assert http.delete(wrong.headers["location"]).status_code == 204
    assert factor() == (1.0, 1)
    again = http.delete(wrong.headers["location"])
    assert (again.status_code, again.json()["type"]) == (404, "/problems/unknown-measurement")
    assert http.get(wrong.headers["location"]).status_code == 404


def test_a_run_above_a_plan_that_had_a_margin_already_widens_the_margin(http):
    """1.5 times, then 1.25 times what that came to: the plan then projects no less than was held"""
    device = "another device of this test"
    profile = json.loads(PROFILE.read_text()) | {"device_name": device}
    http.post("/v1/profiles", json=profile)
    sizes = {name: profile[name] for name in ("input_size", "hidden_size", "num_layers", "dtype")}
    request = {
        "model": {"kind": profile["cell"], "implementation": profile["implementation"], **sizes}
        | {"embedding": {"vocabulary_size": profile["embedding_size"]}}
        | {"head": {"output_size": profile["head_output_size"]}},
        "sequence": {"length": profile["sequence_length"], "batch_size": profile["batch_size"]},
        "memory": {"device_budget_bytes": "1GiB"},
        "device_name": device,
    }
    told = {name: profile[name] for name in ("cell", "implementation", "dtype")} | {"device": device}

    def planned_and_run(ratio: float) -> tuple[int, int]:
        plan = http.post("/v1/plans", json=request).json()
        projected = plan["memory"]["projected_peak_bytes"]
        seen = {"projected_peak_bytes": projected, "measured_peak_bytes": int(ratio * projected)}
        named = {"plan_id": plan["id"], "segment_steps": plan["segment_steps"]}
        assert http.post("/v1/measurements", json=REPORT | told | seen | named).status_code == 201
        return projected, seen["measured_peak_bytes"]

    for ratio in (1.5, 1.25):
        _, measured_bytes = planned_and_run(ratio)
    assert planned_and_run(0.5)[0] >= measured_bytes
