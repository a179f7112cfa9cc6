"""What Slurm is told of a launch. The cluster suite submits the same to a real controller."""

from __future__ import annotations

import subprocess

import pytest

from planner_service.dispatch import EngineUnreachable, Launch, Resources
from planner_service.dispatch.slurm import SlurmEngine, batch_script, resource_arguments, sbatch_arguments

GIB = 2**30


def launch(**changes):
    given = {
        "job_id": "j1",
        "number": 2,
        "command": ("tightfit-worker", "attempt", "--work-dir", "/shared/it's here"),
        "launch_token": "secret",
        "work_dir": "/shared/j1",
    }
    return Launch(**(given | changes))


def test_the_token_is_in_no_argument_and_in_no_script():
    told = " ".join([*sbatch_arguments(launch()), batch_script(launch())])
    assert "secret" not in told


def test_slurm_requeues_after_the_loss_of_a_node_and_keeps_the_log_of_the_attempt_before():
    arguments = sbatch_arguments(launch())
    assert {"--requeue", "--open-mode=append", "--job-name=tightfit-j1-2"} <= set(arguments)


@pytest.mark.parametrize(("priority", "nice"), [(100, 0), (0, 0), (-1, 1), (-100, 100)])
def test_a_lower_priority_is_nicer_and_a_higher_one_asks_for_no_right(priority, nice):
    assert f"--nice={nice}" in sbatch_arguments(launch(priority=priority))


def test_main_memory_is_asked_for_in_whole_mebibytes_rounded_up_for_all_ranks():
    resources = Resources(device="cpu", request_bytes=GIB + 1, processes=2)
    assert resource_arguments(resources) == ["--nodes=1", "--mem=2049M"]


def test_devices_are_asked_for_whole_never_by_a_count_of_memory():
    one = resource_arguments(Resources(request_bytes=140 * GIB, device_types=("h200",), processes=2))
    many = resource_arguments(Resources(request_bytes=20 * GIB, device_types=("h200", "a100")))
    unknown = resource_arguments(Resources())
    assert one == ["--nodes=1", "--gres=gpu:h200:2"]
    assert many == ["--nodes=1", "--gres=gpu:1", "--constraint=h200|a100"]
    assert unknown == ["--nodes=1", "--gres=gpu:1"]


def test_the_shell_becomes_the_worker_after_the_setup_line():
    script = batch_script(launch(command=("printf", "%s", "it's")), setup="greeting=hello; export greeting")
    assert script.splitlines()[:2] == ["#!/bin/sh", "greeting=hello; export greeting"]
    ran = subprocess.run(["/bin/sh"], input=script, capture_output=True, text=True, check=True)
    assert ran.stdout == "it's"


def test_a_machine_without_slurm_is_an_engine_that_does_not_answer(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineUnreachable, match="no command squeue"):
        SlurmEngine().status("1")
