"""What Slurm is told of a launch. The cluster suite submits the same to a real controller."""

from __future__ import annotations

import os
import subprocess

import pytest

from planner_service.dispatch import EngineBusy, EngineRefused, EngineUnreachable, Launch, Resources
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
    assert resource_arguments(Resources(device_types=("gpu",))) == ["--nodes=1", "--gres=gpu:1"], (
        "no type in GRES"
    )
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
        SlurmEngine().statuses(["1"])


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Commands that stand for Slurm's: `slurm(name, line of shell)`; each notes what it was told."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")

    def command(name, body="true"):
        path = tmp_path / name
        path.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/told-{name}\n{body}\n')
        path.chmod(0o755)

    for name in ("squeue", "sbatch", "scancel", "sinfo", "sacct"):
        command(name)
    command.told = lambda name: (
        (tmp_path / f"told-{name}").read_text().splitlines() if (tmp_path / f"told-{name}").exists() else []
    )
    return command


@pytest.fixture
def resources(tmp_path):
    """Submit with these resources."""

    def submit(**needs):
        return SlurmEngine().submit(launch(work_dir=str(tmp_path / "w"), resources=Resources(**needs)))

    return submit


TWO = {"device_types": ("h100", "a100"), "any_type": False}


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ("h100,ib|gpu:h100:4(S:0-1)\na100|gpu:a100:8", "--gres=gpu:1 --constraint=h100|a100"),
        ("(null)|gpu:a100:8\n(null)|gpu:h100:4", "--gres=gpu:h100:1"),
        ("(null)|gpu:t4:1,gpu:a100:8(S:0)", "--gres=gpu:a100:1"),
        ("a100|gpu:a100:8\n(null)|gpu:h100:4", "--gres=gpu:a100:1"),
    ],
)
def test_several_types_are_asked_for_by_features_else_the_best_that_nodes_have(
    slurm, resources, nodes, words
):
    slurm("sinfo", f"printf '%s\\n' '{nodes}'")
    slurm("sbatch", "echo 7")
    assert resources(**TWO) == "7"
    assert words in slurm.told("sbatch")[0]


def test_types_that_no_node_has_are_refused(slurm, resources):
    slurm("sinfo", "echo '(null)|gpu:t4:2'")
    with pytest.raises(EngineRefused, match=r"no node has a device .* of type h100, a100"):
        resources(**TWO)


def test_types_without_a_name_are_not_any_type(slurm, resources):
    with pytest.raises(EngineRefused, match="no name"):
        resources(any_type=False)
    assert slurm.told("sbatch") == []


@pytest.mark.parametrize(
    ("complaint", "error"),
    [
        (
            "Batch job submission failed: Invalid account or account/partition combination specified",
            EngineRefused,
        ),
        ("Batch job submission failed: Requested node configuration is not available", EngineRefused),
        ("Batch job submission failed: Invalid generic resource (gres) specification", EngineRefused),
        ("invalid partition specified: none", EngineRefused),
        ("Batch job submission failed: Unspecified error", EngineRefused),
        (
            "QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates "
            "accounting/QOS policy (job submit limit, user's size and/or time limits)",
            EngineBusy,
        ),
        ("Batch job submission failed: Resource temporarily unavailable", EngineBusy),
        ("Batch job submission failed: Required partition not available (inactive or drain)", EngineBusy),
        ("Batch job submission failed: Protocol authentication error", EngineUnreachable),
        (
            "Batch job submission failed: Unable to contact slurm controller (connect failure)",
            EngineUnreachable,
        ),
    ],
)
def test_only_what_will_stay_ends_a_job(slurm, resources, complaint, error):
    slurm("sbatch", f"cat >&2 <<'END'\nsbatch: error: {complaint}\nEND\nexit 1")
    with pytest.raises(error):
        resources()


def test_all_jobs_are_asked_about_in_one_question(slurm):
    slurm("squeue", "echo '11|tightfit-j1-1|RUNNING|None|n1'; echo '12|tightfit-j2-1|PENDING|Priority|'")
    slurm("sacct", "echo '13|tightfit-j3-1|COMPLETED|0:0|n2'")
    found = SlurmEngine().statuses(["11", "12", "13", "14"])
    assert {name: status.state for name, status in found.items()} == {
        "11": "running",
        "12": "waiting",
        "13": "succeeded",
        "14": "missing",
    }
    assert len(slurm.told("squeue")) == len(slurm.told("sacct")) == 1


def test_a_single_job_that_the_controller_has_forgotten_is_missing(slurm):
    slurm("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert SlurmEngine().statuses(["11"])["11"].state == "missing"


def test_an_answer_that_is_none_of_slurms_is_no_answer(slurm):
    slurm("squeue", "echo 'Please wait'")
    with pytest.raises(EngineUnreachable, match="none of its own"):
        SlurmEngine().statuses(["11"])


def test_a_number_that_was_given_to_another_job_since_is_not_touched(slurm):
    """Of a controller that was set up anew: the numbers of old launches come again"""
    slurm("squeue", 'case "$*" in *%A*) echo "11|weather|RUNNING|None|n1";; *) echo weather;; esac')
    assert SlurmEngine().statuses(["11"])["11"].state == "missing"
    SlurmEngine().cancel("11")
    assert slurm.told("scancel") == []


def test_what_is_cancelled_is_ours_or_forgotten(slurm):
    slurm("squeue", "echo tightfit-j1-1")
    SlurmEngine().cancel("11")
    slurm("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    SlurmEngine().cancel("12")
    assert slurm.told("scancel") == ["--full 11"]
    slurm("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(EngineUnreachable, match="Unable to contact"):
        SlurmEngine().cancel("11")


def test_a_launch_is_withdrawn_by_its_name(slurm):
    slurm("squeue", 'case "$*" in *--name=tightfit-j1-1*) echo 11;; esac')
    slurm("scancel", "echo 'scancel: error: Job/step already completing or completed' >&2; exit 1")
    SlurmEngine().withdraw("tightfit-j1-1")
    SlurmEngine().withdraw("tightfit-j1-2")
    assert slurm.told("scancel") == ["--full 11"]
