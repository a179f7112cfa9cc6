"""What this node has, without touching the device: a CUDA context would take half a gigabyte of it."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch

from executor import cgroup
from executor.device import free_bytes

_MEMINFO = Path("/proc/meminfo")
_QUERY = "name,memory.total,memory.free,driver_version"
_QUERY_SECONDS = 10.0
_LOOK_SECONDS = 120.0
_LOOK = """
import json, torch
device = torch.cuda.get_device_properties(0)
free, total = torch.cuda.mem_get_info(0)
name, _, part = device.name.partition(" MIG ")
told = {"device": name, "mig_slice": "MIG " + part, "memory_total_bytes": total, "memory_free_bytes": free}
print(json.dumps(told))
"""
_SLICE = re.compile(r"MIG \d+g\.\d+gb\S*", re.IGNORECASE)
_MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class NodeFacts:
    """One device with its memory."""

    device: str
    device_kind: str
    """cpu or cuda."""
    memory_total_bytes: int
    memory_free_bytes: int
    mig_slice: str | None = None
    driver: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def registration(self, *, most_bytes: int | None = None) -> dict[str, Any]:
        """Fields of the registration; `most_bytes` is what the agent may give away of the device."""
        limit = self.memory_total_bytes if most_bytes is None else most_bytes
        return {
            **vars(self),
            "memory_total_bytes": min(self.memory_total_bytes, limit),
            "memory_free_bytes": min(self.memory_free_bytes, limit),
            "torch": torch.__version__,
            "facts": {**self.facts, "host": platform.node(), "python": platform.python_version()},
        }


def node_facts() -> NodeFacts:
    """The first visible GPU or MIG slice where torch can use one, else this machine's own memory."""
    facts = _gpu() if torch.version.cuda is not None else None
    return _host() if facts is None else facts


def _gpu() -> NodeFacts | None:
    """What CUDA_VISIBLE_DEVICES names first; None where there is no GPU."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    if visible.startswith("MIG"):
        return _slice_facts()
    chosen = [f"--id={visible}"] if visible else []
    lines = _nvidia_smi(*chosen, "--query-gpu=" + _QUERY, "--format=csv,noheader,nounits")
    return gpu_facts(lines[0], _nvidia_smi("-L")) if lines else None


@cache
def _slice_facts() -> NodeFacts | None:
    """A MIG slice, which nvidia-smi does not query: torch looks once, in a process of its own that ends."""
    done = subprocess.run(  # noqa: S603 - a fixed command
        [sys.executable, "-c", _LOOK], capture_output=True, text=True, timeout=_LOOK_SECONDS, check=False
    )
    return NodeFacts(**json.loads(done.stdout), device_kind="cuda") if done.returncode == 0 else None


def _host() -> NodeFacts:
    return NodeFacts(
        device="cpu",
        device_kind="cpu",
        memory_total_bytes=_host_total_bytes(),
        memory_free_bytes=free_bytes(torch.device("cpu")),
    )


def gpu_facts(line: str, listed: list[str]) -> NodeFacts:
    """From a line of `nvidia-smi --query-gpu` and the lines of `nvidia-smi -L`."""
    name, total, free, driver = (part.strip() for part in line.split(","))
    found = next((match[0] for text in listed if (match := _SLICE.search(text))), None)
    return NodeFacts(
        device=name,
        device_kind="cuda",
        memory_total_bytes=int(total) * _MIB,
        memory_free_bytes=int(free) * _MIB,
        mig_slice=found,
        driver=driver,
    )


def _nvidia_smi(*arguments: str) -> list[str]:
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command
            [command, *arguments], capture_output=True, text=True, timeout=_QUERY_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def _host_total_bytes() -> int:
    limit = cgroup.limit_bytes()
    total = _meminfo_bytes("MemTotal")
    return total if limit is None else min(total, limit)


def _meminfo_bytes(name: str) -> int:
    match = re.search(rf"^{name}:\s+(\d+) kB", _MEMINFO.read_text(), re.MULTILINE)
    if match is None:
        raise OSError(f"{_MEMINFO} has no line {name}")
    return int(match[1]) * 1024
