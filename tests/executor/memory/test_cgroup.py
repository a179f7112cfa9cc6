"""What control groups leave: the least of a group and its parents, in both versions, cache not counted."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch

from executor.memory import cgroup
from executor.memory.device import free_bytes

MIB = 2**20


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Write the files of a group, and the process's own line."""
    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    monkeypatch.setattr(cgroup, "OF_THIS_PROCESS", tmp_path / "self")

    def write(group, **figures):
        folder = tmp_path / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in figures.items():
            (folder / name.replace("__", ".")).write_text(f"{text}\n")

    def of_this_process(*lines):
        (tmp_path / "self").write_text("\n".join(lines) + "\n")

    write.of_this_process = of_this_process
    return write


def test_a_step_of_a_job_has_what_the_least_of_its_groups_leaves(groups):
    """As slurmd makes them: the job has the limit, its step has none of its own"""
    groups.of_this_process("0::/slurm/job_7/step_batch")
    groups("slurm/job_7/step_batch", memory__max="max", memory__current=10 * MIB)
    groups("slurm/job_7", memory__max=522 * MIB, memory__current=100 * MIB)
    groups("slurm", memory__max=4_000 * MIB, memory__current=3_900 * MIB, memory__stat="inactive_file 0")
    assert cgroup.limit_bytes() == 522 * MIB
    assert cgroup.left_bytes() == 100 * MIB


def test_file_cache_that_gives_way_is_not_held(groups):
    groups.of_this_process("0::/job")
    stat = f"anon 1\ninactive_file {30 * MIB}\nactive_file {5 * MIB}"
    groups("job", memory__max=100 * MIB, memory__current=60 * MIB, memory__stat=stat)
    assert cgroup.left_bytes() == 70 * MIB


def test_the_first_version_has_a_tree_of_its_own_for_memory(groups):
    groups.of_this_process("9:cpu,cpuacct:/elsewhere", "4:memory:/slurm/job_7", "0::/")
    no_limit = 2**63 - 4096
    groups("memory/slurm", memory__limit_in_bytes=no_limit, memory__usage_in_bytes=MIB)
    groups("memory/slurm/job_7", memory__limit_in_bytes=8 * MIB, memory__usage_in_bytes=3 * MIB)
    assert (cgroup.limit_bytes(), cgroup.left_bytes()) == (8 * MIB, 5 * MIB)


def test_a_container_that_does_not_see_its_own_path_finds_its_limit_at_the_root(groups):
    groups.of_this_process("0::/kubepods/pod1/abc")
    groups("", memory__max=64 * MIB, memory__current=80 * MIB)
    assert (cgroup.limit_bytes(), cgroup.left_bytes()) == (64 * MIB, 0)


def test_without_groups_there_is_no_limit(groups):
    assert cgroup.limit_bytes() is None
    groups.of_this_process("0::/job")
    groups("job", memory__max="max")
    assert cgroup.left_bytes() is None


def test_the_host_has_no_more_left_than_this_process_may_take(groups):
    groups.of_this_process("0::/job")
    groups("job", memory__max=3 * MIB, memory__current=MIB)
    assert free_bytes(torch.device("cpu")) == 2 * MIB
