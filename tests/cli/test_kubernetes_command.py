"""`tightfit kubernetes job`: valid objects whose bytes are those of the plan, in YAML and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from planner_service.cli import main
from planner_service.cli.kubernetes import object_name
from planner_service.contract import PlacementRequest
from planner_service.planning import Planner
from tests.cli.test_plan_command import SMALL, refusal

JOB = {
    "model": {"kind": "gru", "hidden_size": 16},
    "sequence": {"length": 50, "batch_size": 2},
    "training": {"iterations": 3},
    "budget": "5%",
    "report": {"output": "report.json"},
}
HOLES = [
    {"name": "a", "device": "A100", "memory_total_bytes": "80GiB"},
    {"name": "b", "device": "T4", "memory_total_bytes": "15GiB"},
]


@pytest.fixture
def paths(tmp_path):
    """A job file and a cluster."""
    (tmp_path / "My Job.json").write_text(json.dumps(JOB))
    (tmp_path / "holes.json").write_text(json.dumps(HOLES))
    return [str(tmp_path / "My Job.json"), "--holes", str(tmp_path / "holes.json")]


def objects(capsys, *arguments):
    assert main(["kubernetes", "job", *arguments]) == 0
    found = list(yaml.safe_load_all(capsys.readouterr().out))
    for each in found:
        kubernetes_validate.validate(each, "1.37", strict=True)
    return {each["kind"]: each for each in found}


def test_a_strategy_that_the_worker_cannot_plan_is_refused_before_the_job_waits(paths, capsys):
    Path(paths[0]).write_text(json.dumps({**JOB, "strategy": "sqrt"}))
    assert "strategy='sqrt' takes a service" in refusal(capsys, "kubernetes", "job", *paths)["detail"]


def placed(**fields):
    job = {"job": {name: value for name, value in JOB.items() if name != "report"}}
    request = {"jobs": [job], "holes": HOLES, "planned_offers": 0, **fields}
    return Planner().place(PlacementRequest.model_validate(request)).jobs[0]


def test_a_job_file_becomes_a_job_that_runs_it_within_the_bytes_of_its_plan(paths, capsys):
    found = objects(capsys, *paths, "--queue", "gpus", "--namespace", "research")
    job, words = found["Job"], placed().words
    assert job["metadata"]["name"] == "my-job"
    assert job["metadata"]["namespace"] == "research"
    assert job["metadata"]["annotations"]["tightfit/plan"] == words.plan_id
    assert job["spec"]["suspend"] is True
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["tightfit-worker", "run", "/job/job.json"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    written = json.loads(found["ConfigMap"]["data"]["job.json"])
    assert written == {**JOB, "budget": words.budget_bytes - placed().held_bytes}


def test_the_job_file_is_one_that_the_worker_reads(paths, capsys, tmp_path):
    job = pytest.importorskip("executor.jobs.job")
    (tmp_path / "written.json").write_text(objects(capsys, *paths)["ConfigMap"]["data"]["job.json"])
    assert job.read_job(tmp_path / "written.json").model.hidden_size == 16


def test_a_claim_is_made_where_devices_are_claimed(paths, capsys):
    found = objects(capsys, *paths, "--claim", "dra")
    template = found["ResourceClaimTemplate"]["metadata"]["name"]
    pod = found["Job"]["spec"]["template"]["spec"]
    assert pod["resourceClaims"] == [{"name": "gpu", "resourceClaimTemplateName": template}]
    assert "affinity" not in pod


def test_a_claim_counts_the_devices_of_the_request(request_path, paths, capsys):
    two = {**SMALL, "devices": 2}
    Path(paths[2]).write_text('[{"name": "a", "device": "A100", "memory_total_bytes": "80GiB", "count": 2}]')
    command = ["--command", "torchrun train.py"]
    found = objects(capsys, request_path(two), *paths[1:], "--claim", "dra", *command)
    (request,) = found["ResourceClaimTemplate"]["spec"]["spec"]["devices"]["requests"]
    assert request["exactly"]["count"] == 2


def test_only_fractions_are_a_refusal_that_says_so(paths, capsys):
    Path(paths[2]).write_text(
        '[{"name": "a", "device": "A100", "memory_total_bytes": "80GiB", "fraction": 0.5}]'
    )
    assert "only fractions" in refusal(capsys, "kubernetes", "job", *paths)["detail"]


def test_a_request_with_a_command_of_its_own(request_path, paths, capsys):
    found = objects(
        capsys, request_path(SMALL), *paths[1:], "--image", "me/model", "--command", "python train.py"
    )
    (container,) = found["Job"]["spec"]["template"]["spec"]["containers"]
    assert (container["image"], container["command"]) == ("me/model", ["python", "train.py"])
    assert set(found) == {"Job"}
    assert refusal(capsys, "kubernetes", "job", request_path(SMALL), *paths[1:])["detail"].endswith(
        "is to run"
    )


def test_one_list_in_json(paths, capsys):
    assert main(["kubernetes", "job", *paths, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["kind"], [each["kind"] for each in printed["items"]]) == ("List", ["ConfigMap", "Job"])


def test_main_memory_is_asked_for_on_cpus(paths, capsys):
    Path(paths[2]).write_text('[{"name": "c", "device_kind": "cpu", "memory_total_bytes": "8GiB"}]')
    pod = objects(capsys, *paths, "--device", "cpu")["Job"]["spec"]["template"]["spec"]
    assert set(pod["containers"][0]["resources"]["limits"]) == {"memory"}


def test_what_nothing_holds_is_refused_with_the_bytes(paths, capsys):
    Path(paths[2]).write_text('[{"name": "c", "memory_total_bytes": "1MiB"}]')
    problem = refusal(capsys, "kubernetes", "job", *paths)
    assert problem["type"].endswith("/nothing-holds-it")
    assert problem["missing_bytes"] > problem["minimum_budget_bytes"] > 0


@pytest.mark.parametrize(
    ("text", "name"),
    [("jobs/My Job.v2.json", "my-job-v2"), ("characters", "characters"), ("--", "job"), ("x" * 80, "x" * 63)],
)
def test_names_are_what_kubernetes_allows(text, name):
    assert object_name(text) == name
