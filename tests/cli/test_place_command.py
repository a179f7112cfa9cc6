"""`tightfit place`: tables, JSON, job files and YAML, in process or from a service."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from planner_service.cli import main
from planner_service.contract import PlacementReply
from tests.cli.test_plan_command import SMALL, refusal

EXAMPLES = Path(__file__).parents[2] / "openapi" / "examples" / "placements"
JOB = {
    "model": {"kind": "gru", "hidden_size": 16},
    "sequence": {"length": 50, "batch_size": 2},
    "training": {"iterations": 3},
    "budget": "5%",
    "report": {"output": "report.json"},
}


@pytest.fixture
def holes_path(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text(
        "- {name: small, memory_total_bytes: 600MiB}\n- {name: tiny, memory_total_bytes: 10MiB}\n"
    )
    return str(path)


def test_a_whole_request_is_placed_as_a_table(capsys):
    assert main(["place", str(EXAMPLES / "cluster.json")]) == 0
    printed = capsys.readouterr().out
    assert "fits in          4 of 5 holes" in printed
    assert "--gres=gpu:a100:1" in printed
    assert "no: " in printed


def test_a_plan_request_and_a_job_file_are_placed_against_holes(request_path, tmp_path, holes_path, capsys):
    job_path = tmp_path / "job.json"
    job_path.write_text(json.dumps(JOB))
    assert main(["place", request_path(SMALL), str(job_path), "--holes", holes_path, "--json"]) == 0
    reply = PlacementReply.model_validate_json(capsys.readouterr().out)
    assert [job.fitting_count for job in reply.jobs] == [1, 1]
    assert reply.jobs[1].name == str(job_path)


def test_places_of_inexact_gradients_say_so(tmp_path, holes_path, capsys):
    """Of each job, in the table as in JSON"""
    sparse = {**JOB, "training": {"iterations": 3, "gradient_sparsity": {"rule": "rows"}}}
    paths = [tmp_path / "exact.json", tmp_path / "sparse.json"]
    for path, job in zip(paths, (JOB, sparse), strict=True):
        path.write_text(json.dumps(job))
    command = ["place", *map(str, paths), "--holes", holes_path]
    assert main(command) == 0
    assert capsys.readouterr().out.count("INEXACT gradient") == 1
    assert main([*command, "--json"]) == 0
    reply = PlacementReply.model_validate_json(capsys.readouterr().out)
    assert [job.exact_gradient for job in reply.jobs] == [True, False]


def test_a_service_gives_the_same_answer(service, capsys):
    assert main(["place", str(EXAMPLES / "cluster.json"), "--json"]) == 0
    here = capsys.readouterr().out
    assert main(["place", str(EXAMPLES / "cluster.json"), "--json", "--planner", service.url]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(here)


def test_options_override_the_request(request_path, holes_path, capsys):
    path = request_path(SMALL)
    assert main(["place", path, "--holes", holes_path, "--device", "cpu"]) == 1
    assert "another kind of device" in capsys.readouterr().out
    main(["place", path, "--holes", holes_path, "--offers", "1", "--json"])
    assert len(json.loads(capsys.readouterr().out)["jobs"][0]["offers"]) == 1


def test_a_job_that_fits_nowhere_ends_with_status_1(request_path, tmp_path, capsys):
    holes = tmp_path / "holes.json"
    holes.write_text('{"holes": [{"name": "tiny", "memory_total_bytes": "10MiB"}]}')
    assert main(["place", request_path(SMALL), "--holes", str(holes)]) == 1
    assert "missing" in capsys.readouterr().out


def test_what_cannot_be_read_or_asked_is_refused(tmp_path, request_path, holes_path, capsys):
    path = request_path(SMALL)
    assert refusal(capsys, "place", path)["field"] == "holes"
    (tmp_path / "bad.yaml").write_text("a: [")
    assert "not YAML" in refusal(capsys, "place", path, "--holes", str(tmp_path / "bad.yaml"))["detail"]
    nobody = refusal(capsys, "place", path, "--holes", holes_path, "--planner", "http://127.0.0.1:9")
    assert nobody["type"].endswith("/planner-unreachable")
    assert refusal(capsys, "place", holes_path, "--holes", holes_path)["detail"].endswith("with a model")


def test_a_services_refusal_is_printed_as_it_came(service, tmp_path, capsys):
    request = json.loads((EXAMPLES / "cluster.json").read_text())
    request["jobs"][0]["model"]["implementation"] = "fused"
    path = tmp_path / "request.json"
    path.write_text(json.dumps(request))
    problem = refusal(capsys, "place", str(path), "--planner", service.url)
    assert problem["type"].endswith("/profile-needed")
