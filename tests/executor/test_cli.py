"""The worker's command line: what it prints, and how it refuses."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from executor import cli, worker_commands
from executor.cli import main

JOB = {
    "model": {"kind": "rnn", "hidden_size": 8, "embedding_size": 4},
    "data": {"characters": 5_000},
    "sequence": {"length": 60, "batch_size": 2},
    "training": {"iterations": 2, "learning_rate": 0.02},
    "budget": "200kB",
}


@pytest.fixture
def job_file(tmp_path):
    """Writes JOB with some sections changed; gives its path."""

    def write(**changes):
        path = tmp_path / "job.json"
        path.write_text(json.dumps({**JOB, **changes}))
        return str(path)

    return write


def test_run_prints_the_table_and_writes_the_report(job_file, tmp_path, capsys):
    """Progress goes to standard error, the table to standard output, the report to its file"""
    output = tmp_path / "report.json"
    assert main(["run", job_file(), "--output", str(output)]) == 0
    printed = capsys.readouterr()
    assert "measured peak" in printed.out
    assert "iteration 2/2" in printed.err
    assert json.loads(output.read_text())["job"] == "job"


def test_probe_prints_a_profile(job_file, tmp_path, capsys):
    """The profile is JSON with bytes and seconds for several segment lengths, printed or written"""
    assert main(["probe", job_file()]) == 0
    profile = json.loads(capsys.readouterr().out)
    assert (profile["cell"], profile["sequence_length"], profile["batch_size"]) == ("rnn", 60, 2)
    assert len(profile["segments"]) > 1
    assert main(["probe", job_file(), "--output", str(tmp_path / "profile.json")]) == 0
    written = json.loads((tmp_path / "profile.json").read_text())
    assert written["hidden_size"] == 8


def test_a_checkout_that_is_not_installed_has_no_version(capsys, monkeypatch):
    """Run as python -m executor.cli on an image with torch, numpy and numba alone"""

    def absent(name: str) -> str:
        raise cli.PackageNotFoundError(name)

    monkeypatch.setattr(cli, "version", absent)
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code in (None, 0)
    assert capsys.readouterr().out.startswith("tightfit from a checkout that is not installed, torch ")


def test_a_planner_cannot_be_asked_without_a_client_for_http(job_file, capsys, monkeypatch):
    """On an image with torch, numpy and numba alone; what is missing of our own is a fault of ours"""
    monkeypatch.setitem(sys.modules, "httpx", None)
    monkeypatch.delitem(sys.modules, "planner_service.worker_client", raising=False)
    assert main(["run", job_file(), "--planner", "http://127.0.0.1:1"]) == 2
    assert capsys.readouterr().err.endswith(
        "this needs the package httpx: install tightfit with what it depends on\n"
    )
    monkeypatch.setitem(sys.modules, "planner_service.worker_client", None)
    with pytest.raises(ModuleNotFoundError):
        main(["run", job_file(), "--planner", "http://127.0.0.1:1"])


@pytest.mark.parametrize(
    ("changes", "options", "reason"),
    [
        ({"budget": 1_000}, [], "give at least"),
        ({"budget": "8kB", "maximum_slowdown_ratio": 1.0}, [], "times full BPTT's time"),
        ({"budget": "much"}, [], "budget: "),
        ({"sequence": {"length": 0, "batch_size": 2}}, [], "sequence.length: 0"),
        ({"data": {"text": "absent.txt"}}, [], "data.text: "),
        ({}, ["--planner", "http://127.0.0.1:1"], "no planner answers at http://127.0.0.1:1"),
        ({}, ["--planner", "nonsense"], "no planner answers at nonsense"),
        ({"model": {"kind": "rnn", "hidden_size": 10**9}}, [], "out of memory: "),
        ({}, ["--output", "."], "report.output: . cannot be written: it is a folder"),
        ({"report": {"weights": "absent/w.pt"}}, [], "report.weights: absent/w.pt cannot be written"),
    ],
)
def test_refusals_are_one_line_and_status_2(job_file, capsys, changes, options, reason):
    """Whatever is wrong is said in one line that starts with the program's name, without a traceback"""
    assert main(["run", job_file(**changes), "--quiet", *options]) == 2
    printed = capsys.readouterr().err.strip()
    assert printed.startswith("tightfit-worker: ")
    assert reason in printed
    assert "\n" not in printed


@pytest.mark.parametrize(
    ("weights", "output", "reason"),
    [
        ("same", "./same", "report.weights: "),
        ("text", "report", "report.weights: "),
        ("weights", "job.json", "report.output: "),
        ("weights", "loop", "report.output: "),
    ],
)
def test_no_file_is_written_over_another(job_file, tmp_path, capsys, weights, output, reason):
    """Weights were gone under the report, the text under the weights; a link to itself was a traceback."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "text").write_text("some text " * 100)
    path = job_file(data={"text": "text"}, report={"weights": str(tmp_path / weights)})
    before = {each: each.lstat().st_mtime_ns for each in tmp_path.iterdir()}
    assert main(["run", path, "--quiet", "--output", str(tmp_path / output)]) == 2
    assert capsys.readouterr().err.startswith(f"tightfit-worker: {reason}{tmp_path}")
    assert {each: each.lstat().st_mtime_ns for each in tmp_path.iterdir()} == before


def test_a_profile_does_not_take_the_place_of_its_job(job_file, capsys):
    path = job_file()
    assert main(["probe", path, "--output", path]) == 2
    assert "is the job file too" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--planner", "x"], "'x' is no address of a service: give http://HOST:PORT"),
        (["--planner", "planner.example:8443"], "is no address of a service"),
        (["--planner", "ftp://host"], "is no address of a service"),
        (["--planner", "http://["], "is no address of a service"),
        (["--planner", "http://host:port"], "is no address of a service"),
        (["--memory", "3Q"], "'3Q': "),
        (["--memory", "0"], "'0': must be positive"),
        (["--node", ""], "'' cannot be a node's name"),
        (["--node", ".."], "'..' cannot be a node's name"),
        (["--node", "a/b"], "'a/b' cannot be a node's name"),
        (["--node", "two\nlines"], r"'two\nlines' cannot be a node's name"),
        (["--node", "n" * 201], "give 1 to 200 printable characters without a slash"),
        (["--slots", "0"], "'0' must be at least 1"),
        (["--jobs", "many"], "'many' is no number"),
        (["--poll-seconds", "nan"], "'nan': give 0 to 10000000 seconds"),
        (["--save-seconds", "-1"], "'-1': give 0 to 10000000 seconds"),
    ],
)
def test_an_agent_refuses_what_can_never_work_with_the_reason(capsys, monkeypatch, options, reason):
    """Exit status 2 and one line that says what to give, whatever function reads the argument"""
    monkeypatch.setattr(
        worker_commands, "_agent", lambda _parsed: 0
    )  # one that takes them would ask for ever
    with pytest.raises(SystemExit) as refused:
        main(["agent", "--planner", "http://127.0.0.1:1", *options])
    assert refused.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"tightfit-worker agent: error: argument {options[0]}: ")
    assert reason in line


def test_agents_and_attempts_are_called_by_slurms_name_of_the_node_or_the_hosts(monkeypatch):
    for command in (["agent"], ["attempt", "--job", "id"]):
        for slurms, name in (("gpu-17", "gpu-17"), ("", platform.node())):
            monkeypatch.setenv("SLURMD_NODENAME", slurms)
            assert cli._parser().parse_args([*command, "--planner", "http://planner"]).node == name


def test_a_report_that_cannot_be_written_is_a_refusal(job_file, tmp_path, capsys):
    """A folder that does not exist is named"""
    output = tmp_path / "absent" / "report.json"
    assert main(["run", job_file(), "--quiet", "--output", str(output)]) == 2
    assert str(output) in capsys.readouterr().err


def test_a_full_disk_costs_what_would_be_kept_and_nothing_else(job_file, capsys):
    """The training is done: its table is printed, and what is missing is said, of every file"""
    job = job_file(report={"weights": "/dev/full", "gradient_check_steps": 0})
    assert main(["run", job, "--quiet", "--output", "/dev/full"]) == 1
    printed = capsys.readouterr()
    assert "measured peak" in printed.out
    assert "weights file /dev/full is NOT written" in printed.err
    assert "report /dev/full is NOT written: [Errno 28]" in printed.err


def test_a_reader_that_has_left_hides_no_broken_promise(job_file, monkeypatch, capsys):
    """`run job | head -1`: status 1 and the promise, and nothing more to say at exit"""
    told = SimpleNamespace(table=lambda: "a table", broken_promises=["the peak"])
    monkeypatch.setattr("executor.worker.run_job", lambda *_, **__: told)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as left:
        monkeypatch.setattr("sys.stdout", left)
        assert main(["run", job_file()]) == 1
    assert capsys.readouterr().err == "BROKEN PROMISE: the peak\n"


@pytest.mark.parametrize("command", [[], ["run"], ["probe"], ["demo"]])
def test_help_teaches(command, capsys):
    """Every command has a help text with an example or a description"""
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert caught.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 5


def test_the_command_is_installed():
    """`tightfit-worker` is there after installation and answers"""
    command = Path(sys.executable).with_name("tightfit-worker")
    answer = subprocess.run([command, "--help"], capture_output=True, text=True)
    assert answer.returncode == 0
    assert "demo" in answer.stdout


def test_commands_have_expandable_segments_and_leave_the_environment_as_it_was(monkeypatch):
    """CUDA's allocator reads the environment of the command, and that of what it starts"""
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    seen = []
    monkeypatch.setattr(cli, "_run", lambda _parsed: seen.extend(os.environ.values()) or 0)
    before = dict(os.environ)
    assert cli.main(["run", "job.yaml"]) == 0
    assert "expandable_segments:True" in seen
    assert dict(os.environ) == before
