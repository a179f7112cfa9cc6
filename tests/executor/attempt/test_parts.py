"""The parts of an attempt that need no process of their own."""

import re
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from executor.attempt import oom_killer  # noqa: E402
from executor.attempt.action_times import ActionTimes  # noqa: E402
from executor.attempt.data_roots import within_roots  # noqa: E402
from executor.attempt.log_tail import LogTail  # noqa: E402
from executor.attempt.memory_cap import (  # noqa: E402
    OutOfMemory,
    data_bytes,
    memory_cap,
    missing_bytes,
    slack_bytes,
)
from executor.attempt.task import job_of  # noqa: E402
from executor.jobs.job import InvalidJob  # noqa: E402
from planner_service.chain import Advance, Backward, Free, Tape  # noqa: E402

CPU = torch.device("cpu")
REQUEST = {
    "name": None,
    "model": {"kind": "gru", "hidden_size": 8, "embedding_size": 4, "num_layers": 1, "dtype": "float32"},
    "data": {"text": "book.txt", "characters": None},
    "sequence": {"length": 40, "batch_size": 2},
    "training": {"iterations": 3, "optimizer": "adam", "learning_rate": 0.01, "seed": 0},
    "budget": "5%",
    "priority": 7,
}
CAPPED = """
import torch
from executor.attempt.memory_cap import OutOfMemory, memory_cap
kept = []
try:
    with memory_cap(2**20, torch.device("cpu")):
        for _ in range(64):
            kept.append(torch.zeros(2**22))
except OutOfMemory as error:
    print("refused", len(kept), error.excess_bytes)
kept.append(torch.zeros(2**26))
print("afterwards", len(kept))
"""


def test_a_job_request_of_the_wire_is_a_job_of_the_executor():
    """Sections and the effective budget; what the service alone needs is left out"""
    job = job_of(REQUEST, 4096)
    assert (job.model.kind, job.sequence.length, job.training.learning_rate) == ("gru", 40, 0.01)
    assert job.budget.given_bytes == 4096
    assert job.data.characters is None


def test_a_text_is_found_in_the_data_folders_and_nowhere_else(tmp_path):
    """Not beside them, not by .., not by an absolute path, not by a link that leads out or in a circle"""
    root = tmp_path / "root"
    root.mkdir()
    (root / "book.txt").write_text("text")
    (tmp_path / "secret.txt").write_text("secret")
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    (root / "circle.txt").symlink_to(root / "circle.txt")
    job = job_of(REQUEST, 4096)
    assert within_roots(job, [root]).data.text == str((root / "book.txt").resolve())
    absolute = str(tmp_path / "secret.txt")
    for outside in ("../secret.txt", absolute, "link.txt", "missing.txt", "circle.txt", "long" * 75):
        other = job_of({**REQUEST, "data": {"text": outside}}, 4096)
        with pytest.raises(InvalidJob, match=re.escape(outside)):
            within_roots(other, [root])
    with pytest.raises(InvalidJob, match="--data-root"):
        within_roots(job, [])


def test_lines_are_read_once_they_are_whole_and_again_until_they_were_taken(tmp_path):
    """Numbers go up with every line that arrived; half a line waits"""
    log = tmp_path / "log"
    tail = LogTail(log, most_lines=2, most_characters=5)
    assert tail.read() is None
    log.write_bytes(b"one\ntwo\nthree and more\nhal")
    assert tail.read() == tail.read() == (1, ["one", "two"])
    tail.taken(tail.read())
    assert tail.read() == (3, ["three"])
    tail.taken(tail.read())
    assert tail.read() is None
    with log.open("ab") as stream:
        stream.write(b"f\xff\0\n")
    assert tail.read() == (4, ["half\N{REPLACEMENT CHARACTER}"])


def test_the_cap_refuses_what_goes_beyond_it_and_only_inside_of_it():
    """RLIMIT_DATA in a process of its own: 16 MiB tensors until the cap of 1 MiB and its slack is reached"""
    done = subprocess.run([sys.executable, "-c", CAPPED], capture_output=True, text=True, check=True)
    refused, afterwards = done.stdout.splitlines()
    _, count, excess = refused.split()
    assert 2 <= int(count) <= 9
    assert int(excess) > 0
    assert afterwards == f"afterwards {int(count) + 1}"


def test_other_faults_pass_through_the_cap_as_they_are():
    """Only refused memory is OutOfMemory"""
    with pytest.raises(RuntimeError, match="another"), memory_cap(2**30, CPU):
        raise RuntimeError("another fault")
    for refusal in (MemoryError(), RuntimeError("std::bad_alloc")):  # Python's own, and oneDNN's
        with pytest.raises(OutOfMemory), memory_cap(2**30, CPU):
            raise refusal
    assert data_bytes() > 0


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
@pytest.mark.parametrize("got_mib", [0, 10, 96, 1_000, 5_000])
def test_a_budget_after_an_oom_leaves_room_beside_the_tensors(kind, got_mib):
    """What is promised next and its room are what could be had; with all of the slack nothing is missing"""
    promised, got = 2**32, got_mib * 2**20
    next_budget = promised - missing_bytes(promised, got, kind)
    room = got - next_budget
    assert room == min(got // 2, slack_bytes(promised, kind))
    assert missing_bytes(promised, promised + slack_bytes(promised, kind), kind) == 0


def test_seconds_of_actions_are_means_per_segment():
    """Three advanced segments take a third each; what never ran has no seconds"""
    times = ActionTimes(CPU)
    for action in (None, Advance(1, 3), Tape(4, 4), None, Backward(4, 4), Free(3), None):
        times(action)
    record = times.record()
    assert all(seconds is not None and seconds >= 0 for seconds in record.values())
    assert ActionTimes(CPU).record() == {
        "seconds_per_advance": None,
        "seconds_per_tape": None,
        "seconds_per_backward": None,
    }


def test_the_out_of_memory_killers_count_is_read(tmp_path, monkeypatch):
    """Of the container where it has one, else of the machine, else nothing"""
    events = tmp_path / "memory.events"
    monkeypatch.setattr(oom_killer, "_COUNTERS", (tmp_path / "missing", events))
    assert oom_killer.oom_kills() == 0
    events.write_text("low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
    assert oom_killer.oom_kills() == 2
