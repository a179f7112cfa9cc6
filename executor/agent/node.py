"""What this node has, without touching the device: a CUDA context would take half a gigabyte of it."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from executor.memory import cgroup
from executor.memory.device import free_bytes

_MEMINFO = Path("/proc/meminfo")
_QUERY = "name,memory.total,memory.free,driver_version"
_QUERY_SECONDS = 10.0
_LOOK_SECONDS = 120.0
_LOOK = """
import json, torch
device = torch.cuda.get_device_properties(0)
free, total = torch.cuda.mem_get_info(0)
name, _, part = device.name.partition(" MIG ")
told = {"device": name, "memory_total_bytes": total, "memory_free_bytes": free}
print(json.dumps({**told, "mig_slice": "MIG " + part if part else None}))
"""
LOOK_AGAIN_SECONDS = 300.0
"""A look takes seconds, and half a gigabyte of the slice for as long."""
PCI_ORDER = "PCI_BUS_ID"
"""How nvidia-smi counts GPUs. CUDA counts the fastest first unless CUDA_DEVICE_ORDER says so."""
_NO_GPU = ("", "-1")
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


_seen: list[NodeFacts] = []
"""The GPU or slice that was described last."""


def node_facts() -> NodeFacts:
    """The first visible GPU or MIG slice where torch can use one, else this machine's own memory.

    Raises OSError where nothing is told of a GPU that was there: jobs for it are not to be chosen by the
    machine's memory.
    """
    facts = _gpu() if torch.version.cuda is not None else None
    if facts is None and _seen:
        raise OSError(f"nvidia-smi tells nothing any more of this node's {_seen[-1].device}")
    if facts is None:
        return _host()
    _seen[:] = [facts]
    return facts


def _gpu() -> NodeFacts | None:
    """What CUDA_VISIBLE_DEVICES names first; None where there is no GPU, or where it hides them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = "" if given is None else given.split(",")[0].strip()
    if given is not None and visible in _NO_GPU:
        return None
    if visible.startswith("MIG") or _has_slice(_nvidia_smi("-L"), visible):
        return _last_look()
    chosen = [f"--id={visible}"] if visible else []
    lines = _nvidia_smi(*chosen, "--query-gpu=" + _QUERY, "--format=csv,noheader,nounits")
    try:
        return gpu_facts(lines[0]) if lines else None
    except ValueError:  # "[N/A]", in containers that see a slice only
        return _last_look()


def _has_slice(listed: list[str], visible: str) -> bool:
    """Whether CUDA sees a slice of the GPU `visible` (its index, its UUID or the beginning of it; empty: the
    first one), by the lines of `nvidia-smi -L`: each GPU is followed by its slices.
    """
    is_chosen = False
    for line in listed:
        if line.startswith("GPU "):
            is_chosen = line.startswith(f"GPU {visible or 0}:") or f"UUID: {visible or '-'}" in line
        elif is_chosen and _SLICE.search(line):
            return True
    return os.environ.get("NVIDIA_VISIBLE_DEVICES", "").startswith("MIG")


_looks: list[tuple[float, NodeFacts | None]] = []
"""The last look at a device: when, and what was seen."""


def _last_look() -> NodeFacts | None:
    """What torch saw, at most `LOOK_AGAIN_SECONDS` ago. A slice that is too full for a look is as it was."""
    now = time.monotonic()
    at, known = _looks[-1] if _looks else (-math.inf, None)
    if now - at >= LOOK_AGAIN_SECONDS:
        known = _looked_at() or known
        _looks[:] = [(now, known)]
    return known


def _looked_at() -> NodeFacts | None:
    """A slice, which nvidia-smi does not query: torch looks, in a process of its own that ends."""
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command
            [sys.executable, "-c", _LOOK],
            capture_output=True,
            text=True,
            timeout=_LOOK_SECONDS,
            check=False,
            env={"CUDA_DEVICE_ORDER": PCI_ORDER, **os.environ},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return NodeFacts(**json.loads(done.stdout), device_kind="cuda") if done.returncode == 0 else None


def _host() -> NodeFacts:
    return NodeFacts(
        device="cpu",
        device_kind="cpu",
        memory_total_bytes=_host_total_bytes(),
        memory_free_bytes=free_bytes(torch.device("cpu")),
    )


def gpu_facts(line: str) -> NodeFacts:
    """From a line of `nvidia-smi --query-gpu`. Raises ValueError where it does not tell the memory."""
    name, total, free, driver = (part.strip() for part in line.split(","))
    return NodeFacts(
        device=name,
        device_kind="cuda",
        memory_total_bytes=int(total) * _MIB,
        memory_free_bytes=int(free) * _MIB,
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
