"""Submissions to a real Slurm whose filters ask a real planner, or one that is down or hung."""

from __future__ import annotations

import json
import re
import shutil
import socket
import threading
import time
from pathlib import Path

import pytest

from planner_service.dispatch import Launch, Resources
from planner_service.dispatch.slurm import SlurmEngine
from tests.cluster.slurm_cluster import Node, SlurmCluster, missing_parts
from tests.serving import start_service

DEPLOY = Path(__file__).parents[2] / "deploy" / "slurm"
NODES = (Node("c1", 4_000), Node("g1", 4_000, "h100", 2), Node("g2", 4_000, "t4", 2))
GPU_MEMORY = {"h100": "80GiB", "t4": "2GiB"}
JOB = {
    "model": {"kind": "lstm", "hidden_size": 256, "embedding_size": 64},
    "sequence": {"length": 4000, "batch_size": 64},
    "training": {"iterations": 2},
    "budget": "free",
}
LONGEST_DELAY_SECONDS = 1.1
"""What a planner that does not answer may cost a submission, beside one without a filter's work."""
HANGING_SECONDS = 1.0
"""How long the filter waits for an answer."""
TRIES = 3
"""The quickest counts: this host has other work to do."""

pytestmark = pytest.mark.skipif(bool(missing_parts()), reason=f"this machine lacks {missing_parts()}")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Three nodes, both filters installed as the page on Slurm says."""
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("cli_filter.lua", "job_submit.lua"):
        shutil.copy(DEPLOY / name, folder / name)
    running = SlurmCluster(folder, NODES, plugins="CliFilterPlugins=cli_filter/lua\nJobSubmitPlugins=lua")
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def planner(tmp_path_factory):
    """A planner that has answered a placement before: its kernels are warm."""
    running = start_service(tmp_path_factory.mktemp("planner"))
    yield running
    running.terminate()


@pytest.fixture
def submit(cluster, planner, tmp_path):
    """Submit with the planner at `url`; what sbatch said, what the job became, and the seconds it took."""
    holes = _holes(cluster)
    (cluster.folder / "holes.json").write_text(json.dumps(holes))

    def submit_to(*options, url=planner.url, job=JOB):
        (tmp_path / "job.json").write_text(json.dumps(job))
        lines = [f"planner_url={url}", f"holes={cluster.folder}/holes.json"]
        (cluster.folder / "tightfit.conf").write_text("\n".join(lines) + "\n")
        began = time.monotonic()
        done = cluster.run("sbatch", "--parsable", "--hold", *options, "--wrap=true", cwd=tmp_path)
        seconds = time.monotonic() - began
        shown = cluster.run("scontrol", "show", "job", done.stdout.strip()).stdout if done.stdout else ""
        return done, shown, seconds

    return submit_to


def _holes(cluster):
    from planner_service.placement.slurm_nodes import slurm_holes

    return slurm_holes(cluster.run("scontrol", "show", "nodes", "--oneliner").stdout, GPU_MEMORY)


def test_a_job_gets_a_gpu_type_that_holds_its_plan(submit):
    done, job, _ = submit("--comment=tightfit:job.json")
    assert done.returncode == 0, done.stderr
    assert "gres:gpu:h100:1" in job
    assert "request_mib=" in job
    assert "types=h100,t4" in job


def test_a_job_on_processors_gets_memory(submit):
    done, job, _ = submit("--comment=tightfit-cpu:job.json")
    assert done.returncode == 0, done.stderr
    asked = int(job.partition("request_mib=")[2].split()[0])
    assert f"mem={asked}M" in job


def test_what_was_asked_for_stays_and_is_checked_in_the_controller_without_a_network(submit):
    done, _, _ = submit("--comment=tightfit-cpu:job.json", "--mem=10M")
    assert done.returncode != 0
    assert "--mem=10M is less than the plan's request" in done.stderr
    done, job, _ = submit("--comment=tightfit-cpu:job.json", "--mem=3900M")
    assert done.returncode == 0, done.stderr
    assert "mem=3900M" in job


def test_a_gpu_that_does_not_hold_the_plan_is_refused(submit):
    long = JOB | {"sequence": {"length": 4000, "batch_size": 200_000}}
    done, _, _ = submit("--comment=tightfit:job.json", "--gres=gpu:t4:1", job=long)
    assert done.returncode != 0
    assert "a GPU of type t4 does not hold the plan; these do: h100" in done.stderr


def test_a_job_that_no_node_holds_is_refused_with_its_least_need(submit):
    huge = JOB | {"sequence": {"length": 4000, "batch_size": 1_000_000}}
    done, _, _ = submit("--comment=tightfit:job.json", job=huge)
    assert done.returncode != 0
    assert "no node of this cluster holds the job: its leanest plan needs" in done.stderr


def test_a_job_file_that_the_planner_refuses_is_refused_with_its_words(submit):
    done, _, _ = submit(
        "--comment=tightfit:job.json", job=JOB | {"model": {"kind": "lstm", "hidden_size": 0}}
    )
    assert done.returncode != 0
    assert "hidden_size" in done.stderr


def test_other_jobs_are_left_alone(submit):
    done, job, _ = submit("--comment=mine")
    assert done.returncode == 0, done.stderr
    assert "Comment=mine" in job


def test_launches_of_the_services_own_engine_pass_the_filters(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    engine = SlurmEngine(options=["--hold"])
    launch = Launch(
        job_id="own",
        number=1,
        command=("true",),
        launch_token="unused",
        work_dir=str(tmp_path / "work"),
        resources=Resources(device_types=("h100", "t4"), any_type=False),
    )
    reference = engine.submit(launch)
    assert engine.submit(launch) == reference
    assert f"launch={launch.name}" in cluster.run("scontrol", "show", "job", reference).stdout
    engine.withdraw(launch.name)
    found = engine.statuses([reference, "999999"])
    assert [found[reference].state, found["999999"].state] == ["cancelled", "missing"]
    engine.withdraw(launch.name)


@pytest.mark.parametrize(
    ("asked", "got"),
    [("--gres=gpu:2", "gres:gpu:h100:2"), ("--gpus=1", "gres:gpu:h100:1"), ("--gpus=t4:1", "gres:gpu:t4:1")],
)
def test_gpus_that_were_asked_for_in_any_option_get_a_type_and_no_others_beside_them(submit, asked, got):
    done, job, _ = submit("--comment=tightfit:job.json", asked)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"gres:gpu\S*", job) == [got]


def test_an_unfit_gpu_is_refused_in_any_option(submit):
    long = JOB | {"sequence": {"length": 4000, "batch_size": 200_000}}
    for option in ("--gpus=t4:1", "--gpus-per-node=t4:1", "--gres=gpu:h100:1,gpu:t4:1"):
        done, _, _ = submit("--comment=tightfit:job.json", option, job=long)
        assert done.returncode != 0
        assert "a GPU of type t4 does not hold the plan" in done.stderr


def test_a_planner_that_is_down_delays_nobody(submit, cluster):
    tries = [submit("--comment=tightfit:job.json", url="http://127.0.0.1:9") for _ in range(TRIES)]
    for done, job, _ in tries:
        assert done.returncode == 0, done.stderr
        assert "submitted as it stands" in done.stderr
        assert "Comment=tightfit:job.json" in job
    assert min(seconds for _, _, seconds in tries) - _plain_seconds(cluster) < LONGEST_DELAY_SECONDS


def test_a_planner_that_hangs_delays_its_own_submissions_by_a_second_and_no_others(submit, cluster):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        tries = [_beside_a_hanging_one(submit, cluster, url) for _ in range(TRIES)]
    mine, others = (min(seconds) for seconds in zip(*tries, strict=True))
    plain = _plain_seconds(cluster)
    assert mine - plain < LONGEST_DELAY_SECONDS
    assert others - plain < HANGING_SECONDS / 2, "it would wait for the rest of that second"


def _beside_a_hanging_one(submit, cluster, url):
    """Seconds of a submission whose planner hangs, and of another that begins a moment later."""
    mine = {}
    thread = threading.Thread(
        target=lambda: mine.update(seconds=submit("--comment=tightfit:job.json", url=url)[2])
    )
    thread.start()
    time.sleep(0.2)
    others = _seconds_of_a_plain_one(cluster)
    thread.join()
    return mine["seconds"], others


def _plain_seconds(cluster):
    """What a submission takes here and now that the filters have nothing to do with."""
    return min(_seconds_of_a_plain_one(cluster) for _ in range(TRIES))


def _seconds_of_a_plain_one(cluster):
    began = time.monotonic()
    done = cluster.run("sbatch", "--hold", "--wrap=true")
    assert done.returncode == 0, done.stderr
    return time.monotonic() - began
