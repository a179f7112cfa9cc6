"""`tightfit frontier | compare | simulate` on the documented examples, tables, JSON and pictures."""

import json
import sys
from pathlib import Path
from typing import get_args

import pytest

from planner_service.chain import TieredAction
from planner_service.cli import main
from planner_service.contract import ComparisonReply, FrontierReply, SimulationReply
from tests.cli.test_plan_command import SMALL, refusal

EXAMPLES = Path(__file__).parents[2] / "openapi" / "examples"


def examples(resource):
    return sorted((EXAMPLES / resource).glob("*.json"))


@pytest.mark.parametrize(
    ("command", "path"),
    [("frontier", path) for path in examples("frontiers")]
    + [("compare", path) for path in examples("comparisons")]
    + [("simulate", path) for path in examples("simulations")],
    ids=lambda value: value if isinstance(value, str) else value.stem,
)
def test_the_documented_examples_answer_or_are_refused_as_their_names_say(command, path, capsys):
    status = main([command, str(path)])
    if path.stem.endswith("-refused"):
        assert status == 2
        assert json.loads(capsys.readouterr().err)["status"] == 422
    else:
        assert status == (1 if path.stem == "illegal" else 0)
        assert capsys.readouterr().out


def test_a_plan_request_serves_every_command(request_path, capsys):
    path = request_path(SMALL)
    assert main(["frontier", path, "--json", "--points", "4"]) == 0
    assert FrontierReply.model_validate_json(capsys.readouterr().out).points
    assert main(["compare", path, "--json", "--budget", "30"]) == 0
    assert ComparisonReply.model_validate_json(capsys.readouterr().out).budget_bytes == 30


def test_a_printed_plan_is_judged_legal_within_its_own_budget(request_path, tmp_path, capsys):
    path = request_path({**SMALL, "memory": {"device_budget_bytes": 30}})
    main(["plan", path, "--json"])
    plan = json.loads(capsys.readouterr().out)
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    assert main(["simulate", path, "--plan", str(tmp_path / "plan.json"), "--json"]) == 0
    reply = SimulationReply.model_validate_json(capsys.readouterr().out)
    assert reply.peak_bytes == plan["memory"]["projected_peak_bytes"]
    assert reply.makespan == plan["cost"]["makespan"]


def test_a_schedule_of_lines_is_judged_and_an_illegal_one_shown(request_path, tmp_path, capsys):
    path = request_path(SMALL)
    lines = tmp_path / "schedule.ndjson"
    lines.write_text('{"action": "tape", "first": 1, "last": 20}\n\n{"action": "free", "state": 3}\n')
    assert main(["simulate", path, "--schedule", str(lines)]) == 1
    assert "ILLEGAL at action 1" in capsys.readouterr().out
    lines.write_text('{"action": "tape", "first": 1, "last": 20}\n{]\n')
    assert "line 2 is not JSON" in refusal(capsys, "simulate", path, "--schedule", str(lines))["detail"]


def test_the_help_names_every_action_and_what_a_recurrent_models_schedule_needs(
    request_path, tmp_path, capsys
):
    """The stages of its schedule are as many steps as REQUEST says"""
    with pytest.raises(SystemExit):
        main(["simulate", "--help"])
    told = capsys.readouterr().out
    actions = {kind.__name__.lower() for kind in get_args(TieredAction)}
    assert {"undo", "fetch"} < actions
    assert {action for action in actions if action not in told} == set()

    model = {"kind": "gru", "input_size": 8, "hidden_size": 16}
    question = {"model": model, "sequence": {"length": 40, "batch_size": 2}}
    lines = tmp_path / "schedule.ndjson"
    lines.write_text(
        '{"action": "tape", "first": 1, "last": 4}\n{"action": "backward", "first": 4, "last": 1}'
    )
    refused = refusal(capsys, "simulate", request_path(question), "--schedule", str(lines))
    assert refused["errors"][0]["field"] == "segment_steps"
    assert "segment_steps" in told
    assert main(["simulate", request_path({**question, "segment_steps": 10}), "--schedule", str(lines)]) == 0


def test_a_frontier_of_inexact_gradients_says_so(request_path, capsys):
    """In the table as in JSON; one of exact gradients has no such line"""
    training = {"gradient_sparsity": {"rule": "columns"}}
    model = {"kind": "gru", "input_size": 8, "hidden_size": 16}
    question = {"model": model, "sequence": {"length": 40, "batch_size": 2}}
    for given, is_exact in ((question, True), ({**question, "training": training}, False)):
        assert main(["frontier", request_path(given), "--points", "3"]) == 0
        assert ("INEXACT gradient" in capsys.readouterr().out) is not is_exact


@pytest.mark.parametrize(("suffix", "begins"), [(".svg", b"<?xml"), (".png", b"\x89PNG")])
def test_pictures_are_drawn(suffix, begins, tmp_path, request_path):
    pytest.importorskip("matplotlib")
    path, simulation = request_path(SMALL), EXAMPLES / "simulations" / "checkpointed.json"
    frontier, timeline = tmp_path / f"frontier{suffix}", tmp_path / f"timeline{suffix}"
    assert main(["frontier", path, "--points", "4", "--output", str(frontier)]) == 0
    assert main(["simulate", str(simulation), "--output", str(timeline)]) == 0
    assert frontier.read_bytes().startswith(begins)
    assert timeline.read_bytes().startswith(begins)


def test_a_picture_that_cannot_be_drawn_is_refused(tmp_path, request_path, capsys):
    path = request_path(SMALL)
    unknown = refusal(capsys, "frontier", path, "--points", "2", "--output", str(tmp_path / "f.pdf"))
    assert ".svg or .png" in unknown["detail"]
    nowhere = str(tmp_path / "missing" / "f.svg")
    assert (
        "cannot be written"
        in refusal(capsys, "frontier", path, "--points", "2", "--output", nowhere)["detail"]
    )


def test_a_picture_asks_for_matplotlib_and_not_for_gigabytes(monkeypatch, tmp_path, request_path, capsys):
    """The planner's users have no torch, which the worker's extra would bring. Nothing is planned before"""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr("planner_service.planning.Planner.frontier", None)
    path, picture = request_path(SMALL), str(tmp_path / "frontier.svg")
    refused = refusal(capsys, "frontier", path, "--points", "3", "--output", picture)
    assert refused["detail"] == "pictures need matplotlib: pip install matplotlib"
