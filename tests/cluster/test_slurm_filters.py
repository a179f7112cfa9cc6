"""Submissions to a real Slurm whose filters ask a real planner, or one that is down or hung."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from pathlib import Path

import pytest

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
"""What a planner that does not answer may cost a submission."""

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
    done, job, seconds = submit("--comment=mine")
    assert done.returncode == 0, done.stderr
    assert "Comment=mine" in job
    assert seconds < LONGEST_DELAY_SECONDS


def test_a_planner_that_is_down_delays_nobody(submit):
    done, job, seconds = submit("--comment=tightfit:job.json", url="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    assert "submitted as it stands" in done.stderr
    assert "Comment=tightfit:job.json" in job
    assert seconds < LONGEST_DELAY_SECONDS


def test_a_planner_that_hangs_delays_its_own_submissions_by_a_second_and_no_others(submit, cluster):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        mine = {}
        thread = threading.Thread(
            target=lambda: mine.update(seconds=submit("--comment=tightfit:job.json", url=url)[2])
        )
        thread.start()
        time.sleep(0.2)
        began = time.monotonic()
        others = cluster.run("sbatch", "--hold", "--wrap=true")
        others_seconds = time.monotonic() - began
        thread.join()
    assert others.returncode == 0, others.stderr
    assert mine["seconds"] - _plain_seconds(cluster) < LONGEST_DELAY_SECONDS
    assert others_seconds < 0.5


def _plain_seconds(cluster):
    began = time.monotonic()
    assert cluster.run("sbatch", "--hold", "--wrap=true").returncode == 0
    return time.monotonic() - began
