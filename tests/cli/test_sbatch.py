"""`tightfit sbatch` and `tightfit slurm-holes`, with commands that stand for Slurm's.

The cluster suite runs them against the real ones.
"""

from __future__ import annotations

import io
import json
import os

import pytest

from planner_service.cli import main
from planner_service.client import PlannerClient, PlannerRefused

JOB = """\
model: {kind: lstm, hidden_size: 64, embedding_size: 16}
sequence: {length: 1000, batch_size: 8}
training: {iterations: 2}
budget: free
"""
NODES = """\
NodeName=c1 RealMemory=64000 Gres=(null) State=IDLE
NodeName=g1 RealMemory=64000 Gres=gpu:a100:2 State=IDLE
NodeName=g2 RealMemory=64000 Gres=gpu:tiny:2 State=IDLE
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a job file, and with `scontrol` and `sbatch` that say what they were told."""
    commands = tmp_path / "bin"
    commands.mkdir()
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "nodes").write_text(NODES)
    _command(commands / "scontrol", f"cat {tmp_path}/nodes")
    _command(commands / "sbatch", f'printf "%s\\n" "$@" > {tmp_path}/told; cat > {tmp_path}/script; exit 7')
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _command(path, body):
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_the_job_asks_for_the_type_that_holds_its_plan_and_runs_under_its_budget(folder):
    memory = ["--gpu-memory", "a100=80GiB", "--gpu-memory", "tiny=600MiB"]
    status = main(
        ["sbatch", "job.yaml", *memory, "--setup", ". env/bin/activate", "--sbatch-options=--time=9"]
    )
    told = (folder / "told").read_text().splitlines()
    script = (folder / "script").read_text().splitlines()
    assert status == 7  # sbatch's own
    assert "--gres=gpu:a100:1" in told
    assert told[-1] == "--time=9"
    assert script[:2] == ["#!/bin/sh", ". env/bin/activate"]
    assert script[2].startswith(f"exec tightfit-worker run {folder}/job.yaml --budget ")
    assert int(script[2].split()[-1]) > 0


def test_on_processors_memory_is_asked_for(folder, capsys):
    """Nobody need say what memory the cluster's GPUs have"""
    assert main(["sbatch", "job.yaml", "--device", "cpu", "--print"]) == 0
    printed = capsys.readouterr().out
    assert "--mem=" in printed
    assert "--gres" not in printed
    assert not (folder / "told").exists()


def test_a_job_that_no_node_holds_is_not_submitted(folder, capsys):
    (folder / "nodes").write_text("NodeName=g2 RealMemory=64000 Gres=gpu:tiny:2 State=IDLE\n")
    assert main(["sbatch", "job.yaml", "--gpu-memory", "tiny=513MiB"]) == 1
    assert "no node of this cluster holds it; its leanest plan needs" in capsys.readouterr().err
    assert not (folder / "told").exists()


@pytest.mark.parametrize(
    ("hole", "note"),
    [({"device": "a100", "fraction": 0.5}, "fractions are left out"), ({}, "types without a name for Slurm")],
)
def test_what_slurm_cannot_be_asked_for_is_a_refusal_that_says_why(folder, capsys, hole, note):
    (folder / "holes.json").write_text(json.dumps([{"name": "h", "memory_total_bytes": "80GiB", **hole}]))
    assert main(["sbatch", "job.yaml", "--holes", "holes.json"]) == 2
    assert note in json.loads(capsys.readouterr().err)["detail"]
    assert not (folder / "told").exists()


def test_a_planner_that_is_down_is_done_without(folder, capsys):
    arguments = ["sbatch", "job.yaml", "--gpu-memory", "a100=80GiB", "--gpu-memory", "tiny=1GiB", "--print"]
    assert main(arguments) == 0
    alone = capsys.readouterr().out
    assert main([*arguments, "--planner", "http://127.0.0.1:9"]) == 0
    captured = capsys.readouterr()
    assert captured.out == alone
    assert "planning here" in captured.err


@pytest.mark.parametrize(
    ("status", "slug", "ends"),
    [(401, "unauthenticated", 0), (503, "queue-full", 0), (422, "invalid-request", 2)],
)
def test_a_planner_that_refuses_is_done_without_unless_it_is_about_the_job(
    folder, monkeypatch, capsys, status, slug, ends
):
    problem = {"type": f"/problems/{slug}", "title": slug, "status": status, "detail": "its words"}

    def refuse(_client: PlannerClient, _request: object) -> None:
        raise PlannerRefused(status, problem)

    monkeypatch.setattr(PlannerClient, "place", refuse)
    arguments = ["sbatch", "job.yaml", "--gpu-memory", "a100=80GiB", "--gpu-memory", "tiny=1GiB", "--print"]
    assert main([*arguments, "--planner", "http://127.0.0.1:9"]) == ends
    captured = capsys.readouterr()
    if ends:
        assert json.loads(captured.err) == problem
    else:
        assert "its words; planning here" in captured.err
        assert "--gres=gpu:" in captured.out


def test_a_job_file_that_the_nodes_cannot_read_is_refused(folder, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO(JOB))
    assert main(["sbatch", "-", "--gpu-memory", "a100=80GiB", "--gpu-memory", "tiny=1GiB"]) == 2
    assert "the nodes read the job file too" in json.loads(capsys.readouterr().err)["detail"]


def test_a_strategy_that_the_worker_cannot_plan_is_refused_before_the_job_waits(folder, capsys):
    (folder / "job.yaml").write_text(JOB + "strategy: sqrt\n")
    assert main(["sbatch", "job.yaml", "--gpu-memory", "a100=80GiB", "--gpu-memory", "tiny=1GiB"]) == 2
    assert "strategy='sqrt' takes a service" in json.loads(capsys.readouterr().err)["detail"]
    assert not (folder / "told").exists()


def test_a_gpu_type_without_its_memory_is_a_refusal_that_says_what_to_add(folder, capsys):
    assert main(["slurm-holes"]) == 2
    assert "--gpu-memory a100=SIZE" in json.loads(capsys.readouterr().err)["detail"]


def test_the_holes_are_a_file_for_place(folder, capsys):
    assert main(["slurm-holes", "--gpu-memory", "a100=80GiB", "--gpu-memory", "tiny=1GiB"]) == 0
    (folder / "holes.json").write_text(capsys.readouterr().out)
    assert main(["place", "job.yaml", "--holes", "holes.json", "--device", "cpu"]) == 0


def test_a_machine_without_slurm_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["slurm-holes"]) == 2
    assert "no command scontrol" in json.loads(capsys.readouterr().err)["detail"]
