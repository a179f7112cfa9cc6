"""`tightfit plan`: a table for people, JSON for programs, and never a traceback."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from planner_service.cli import main, request_file
from planner_service.contract import PlanReply
from tests.contract.requests import CHAIN, LSTM, changed

EXAMPLES = sorted((Path(__file__).parents[2] / "openapi" / "examples" / "plans").glob("*.json"))
SMALL = changed(CHAIN, "model", "stages", 0, "count", to=20)


def refusal(capsys, *arguments):
    """The problem document of a refused command; nothing may be on standard output."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return json.loads(captured.err)


def test_json_is_the_reply_of_the_wire(request_path, capsys):
    assert main(["plan", request_path(SMALL), "--json"]) == 0
    reply = PlanReply.model_validate_json(capsys.readouterr().out)
    assert reply.memory.budget_bytes == 250
    assert reply.segment_count == 20


def test_the_table_shows_budget_peak_cost_and_every_ledger_line(request_path, capsys):
    path = request_path(SMALL)
    main(["plan", path, "--json", "--budget", "30"])
    reply = PlanReply.model_validate_json(capsys.readouterr().out)
    assert main(["plan", path, "--budget", "30"]) == 0
    text = capsys.readouterr().out
    for shown in (reply.id, "exact gradient", f"{reply.memory.projected_peak_bytes} bytes", "30 bytes"):
        assert shown in text
    assert f"{reply.cost.makespan:.6g} forward units" in text
    for line in reply.memory.ledger:
        assert line.name in text
    assert all(row == row.rstrip() for row in text.splitlines())


def test_the_table_shows_what_each_tier_holds_and_moves_beside_the_sum(request_path, capsys):
    host = {"name": "host", "budget_bytes": 9, "write_seconds_per_byte": 1, "read_seconds_per_byte": 2}
    path = request_path(changed(SMALL, "memory", to={"device_budget_bytes": 12, "tiers": [host]}))
    main(["plan", path, "--json"])
    reply = PlanReply.model_validate_json(capsys.readouterr().out)
    (use,) = reply.memory.tiers
    assert main(["plan", path]) == 0
    rows = [row.split() for row in capsys.readouterr().out.splitlines()]
    assert ["sum", str(reply.memory.projected_peak_bytes)] in [row[:2] for row in rows]
    assert ["host", "bytes", str(use.peak_bytes)] in [row[:3] for row in rows]
    moved = [use.peak_bytes, 9, use.write_count, use.written_bytes, use.read_count, use.read_bytes]
    assert ["host", *map(str, moved)] in [row[:7] for row in rows]
    assert ["waits", f"{reply.cost.stall_seconds:.6g}"] in [row[2:4] for row in rows]


def test_standard_input_is_read_for_a_dash(monkeypatch, capsys):
    stdin = io.TextIOWrapper(io.BytesIO(json.dumps(SMALL).encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert main(["plan", "-", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["segment_count"] == 20


def test_budget_and_strategy_of_the_command_line_win(request_path, capsys):
    main(["plan", request_path(SMALL), "--json", "--budget", "1KiB", "--strategy", "store_all"])
    reply = json.loads(capsys.readouterr().out)
    assert (reply["memory"]["budget_bytes"], reply["strategy"]) == (1024, "store_all")


def test_a_small_budget_is_refused_with_the_least_one_and_that_one_works(request_path, capsys):
    path = request_path(SMALL)
    problem = refusal(capsys, "plan", path, "--budget", "1")
    assert problem["type"].endswith("/budget-too-small")
    assert main(["plan", path, "--budget", str(problem["minimum_budget_bytes"])]) == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ('{"model": NaN}', "NaN is no JSON number"),
        ('{"model": -Infinity}', "-Infinity is no JSON number"),
        ("[1]", "a request is an object"),
        ('{"model": {"kind": "lstm"}, "budget": "5%"}', "a job file is no request for a plan"),
        ("[" * 100_000, "not JSON"),
        ('{"a": 1' + "0" * 5000 + "}", "not JSON"),
    ],
)
def test_what_is_not_json_is_refused_in_one_sentence(request_path, capsys, text, said):
    problem = refusal(capsys, "plan", request_path(text))
    assert problem["type"].endswith("/unreadable-request")
    assert said in problem["detail"]


def test_a_request_may_be_written_in_yaml_as_job_files_are(tmp_path, capsys):
    """A job file is told what it is then, and not that it is no JSON"""
    request, job = tmp_path / "request.yaml", tmp_path / "job.yml"
    request.write_text(yaml.safe_dump(SMALL))
    job.write_text("model: {kind: lstm}\nbudget: 5%\n")
    assert main(["plan", str(request), "--json"]) == 0
    assert PlanReply.model_validate_json(capsys.readouterr().out).segment_count == 20
    assert "a job file is no request for a plan" in refusal(capsys, "plan", str(job))["detail"]


def test_a_refusal_whose_reader_has_left_is_still_status_2(request_path, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=1) as unread:
        monkeypatch.setattr(sys, "stderr", unread)
        assert main(["plan", request_path("[1]")]) == 2


def test_a_missing_file_a_folder_and_bytes_that_are_no_text_are_refused(tmp_path, capsys):
    (tmp_path / "latin").write_bytes(b'{"model": "\xe9"}')
    for path, said in (("missing", "No such file"), (".", "directory"), ("latin", "not UTF-8")):
        assert said in refusal(capsys, "plan", str(tmp_path / path))["detail"]


def test_a_request_over_the_size_limit_is_refused(request_path, capsys, monkeypatch):
    monkeypatch.setattr(request_file, "MAXIMUM_REQUEST_BYTES", 100)
    assert "limit of 100 bytes" in refusal(capsys, "plan", request_path(SMALL))["detail"]


def test_a_wrong_field_is_named(request_path, capsys):
    problem = refusal(capsys, "plan", request_path(changed(LSTM, "sequence", "length", to=0)))
    assert problem["field"] == "sequence.length"


def test_an_override_of_a_request_without_memory_names_what_is_missing(request_path, capsys):
    problem = refusal(capsys, "plan", request_path({"memory": 3}), "--budget", "1KiB")
    assert problem["field"] == "model"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_documented_examples_plan_or_are_refused_as_their_names_say(path, capsys):
    refused = path.stem.endswith("-refused")
    assert main(["plan", str(path)]) == (2 if refused else 0)
    if not refused:
        assert "sum" in capsys.readouterr().out


def test_a_command_is_needed(capsys):
    with pytest.raises(SystemExit) as exit_:
        main([])
    assert exit_.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["plan", "--help"]])
def test_help_teaches_with_examples(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert "tightfit plan" in text
    assert "512MiB" in text


@pytest.mark.parametrize("buffering", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])
def test_the_installed_program_survives_a_reader_that_leaves(request_path, buffering):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    program = [sys.executable, "-c", "import sys; from planner_service.cli import main; sys.exit(main())"]
    process = subprocess.Popen(
        [*program, "plan", request_path(SMALL)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**environment, **buffering},
    )
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 0
    assert b"Traceback" not in errors
