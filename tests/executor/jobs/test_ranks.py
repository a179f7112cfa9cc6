"""One job on two processes: the parameters of one process, each process within its budget."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from executor.jobs.job import InvalidJob, job_from_record
from executor.jobs.ranks import Ranks

JOB = {
    "model": {"kind": "lstm", "hidden_size": 24, "embedding_size": 8, "dtype": "float64"},
    "data": {"characters": 6_000},
    "sequence": {"length": 60, "batch_size": 4},
    "training": {"iterations": 4, "optimizer": "momentum", "learning_rate": 0.5},
    "budget": "160KiB",
    "report": {"gradient_check_steps": 20},
}
RUN = [sys.executable, "-m", "executor.cli", "run"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
THEN_THREADS = """
import sys
from pathlib import Path
from executor.cli import main
status = main()
print(*(task.read_text() for task in Path("/proc/self/task").glob("*/comm")), file=sys.stderr)
sys.exit(status)
"""
"""The command line, and after it the names of the threads that are left."""


def train(folder: Path, *command: str) -> tuple[dict[str, torch.Tensor], dict[str, object], str]:
    """Weights, report and standard error of the job, run by a command in `folder`."""
    folder.mkdir()
    report = {**JOB["report"], "output": "report.json", "weights": "weights.pt"}
    (folder / "job.json").write_text(json.dumps(JOB | {"report": report}))
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    root = str(Path(__file__).parents[3])
    environ["PYTHONPATH"] = root
    done = subprocess.run(
        [*command, "job.json"], cwd=folder, env=environ, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("measured peak") == 1  # one process speaks for all
    return torch.load(folder / "weights.pt"), json.loads((folder / "report.json").read_text()), done.stderr


@pytest.mark.slow
def test_two_processes_train_to_the_parameters_of_one_each_within_its_budget(tmp_path):
    """The mean of two half batches' gradients is that of the batch, to rounding: 1e-12 in float64"""
    alone, *_ = train(tmp_path / "one", *RUN)
    counted = ("--no-python", sys.executable, "-c", THEN_THREADS)
    shared, report, said = train(tmp_path / "two", *TORCHRUN, *counted, "run")
    assert said.count("python") >= 2
    assert "gloo" not in said  # a thread of gloo's that Python's end meets aborts the process, now and then
    assert len(report["process_peak_bytes"]) == 2
    assert max(report["process_peak_bytes"]) == report["measured_peak_bytes"] <= report["budget_bytes"]
    assert report["description"]["sequence"]["batch_size"] == 4
    for name, expected in alone.items():
        assert (shared[name] - expected).abs().max() <= 1e-12


def test_without_torchrun_there_is_one_process():
    alone = Ranks.from_environ({})
    job = job_from_record(JOB)
    assert (alone.count, alone.is_first, alone.share(job)) == (1, True, job)
    assert alone.mean([1.5]) == [1.5]


def test_torchruns_words_are_understood():
    given = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    assert Ranks.from_environ(given) == Ranks(rank=5, count=8, local_rank=1, local_count=4)


def test_every_rank_has_its_own_columns_of_the_batch():
    job = job_from_record(JOB)
    whole = Ranks().streams(job).indices
    parts = [Ranks(rank=rank, count=2).streams(job).indices for rank in range(2)]
    assert torch.equal(torch.cat(parts, dim=1), whole)


def test_a_batch_that_cannot_be_shared_equally_is_refused():
    with pytest.raises(InvalidJob, match=r"batch_size: 4 sequences cannot be shared equally by 3 processes"):
        Ranks(count=3).share(job_from_record(JOB))


def test_sparsified_gradients_are_refused_in_several_processes():
    training = JOB["training"] | {"gradient_sparsity": {"rule": "absolute", "threshold": 1e-6}}
    with pytest.raises(InvalidJob, match="one process only"):
        Ranks(count=2).share(job_from_record(JOB | {"training": training}))
